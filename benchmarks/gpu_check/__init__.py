"""What `make gpu-check` measures on one GPU, through the project's own code; see docs/gpu.md."""
