"""What must be found whatever a folder of yours is called: the command, the check of names, vLLM's plugins. It imports
nothing of the other packages before they are known to be ours.
"""
