"""Child processes that do not outlive the process that started them (Linux)."""

from __future__ import annotations

import ctypes
import signal

_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec a child should load nothing
_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """SIGTERM for the calling process when its parent dies, however that dies. Pass it as `preexec_fn` to subprocess.

    A process that handles SIGTERM can end its own children before it exits.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
