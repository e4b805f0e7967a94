"""libc and the few calls of the kernel by which a process gives up rights, with nothing but the standard library."""

import ctypes
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
_prctl = libc.prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def prctl(option: int, value: int, pointer: int = 0) -> None:
    """prctl(2); raises OSError."""
    if _prctl(option, value, pointer, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def syscall(*arguments: Any) -> int:
    """syscall(2) with integers and buffers; raises OSError."""
    result = int(libc.syscall(*(ctypes.c_long(part) if isinstance(part, int) else part for part in arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {arguments[0]} failed")
    return result


def no_new_privileges() -> None:
    """Nothing that this process starts gets more rights than it has: needed for seccomp and Landlock."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide() -> None:
    """Other processes of the same user can neither trace this one and what it forks nor read their /proc entries."""
    prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends; what it forks has to ask for itself."""
    prctl(_PR_SET_PDEATHSIG, 9)


def drop_capabilities() -> None:
    """Root without its powers: what is left is what an owner may do with files. Raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
