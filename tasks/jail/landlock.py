"""Landlock, by <linux/landlock.h>: which files a process and what it starts may use. It also parts processes: one may
neither trace nor (from Linux 6.12 on) signal those outside its own domain.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

from tasks.jail.kernel import no_new_privileges, syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_FIFO, _MAKE_SYM = (1 << n for n in (4, 5, 7, 8, 10, 12))
_FILES = ((1, 0x1FFF), (2, _REFER), (3, _TRUNCATE), (5, 1 << 15))  # all rights, by the version that brought them
_NETWORK, _SCOPES = (4, 0b11), (6, 0b11)  # TCP; abstract sockets and signals to processes outside
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR
_MAKE = _MAKE_DIR | _MAKE_REG | _MAKE_FIFO | _MAKE_SYM
_CHANGE = _READ | _WRITE_FILE | _TRUNCATE | _REFER | _REMOVE_DIR | _REMOVE_FILE | _MAKE


def only(readable: Iterable[str], listed: Iterable[str], writable: Iterable[str]) -> None:
    """From here on, of all files, only these and what is below them; no TCP, no signals to outsiders.

    Args:
        readable: files and folders, to be read.
        listed: folders whose names of files can be had, not the files.
        writable: folders in which everything but devices and sockets may be made, and files that may be written.

    Raises:
        OSError: the kernel has no Landlock, or a path does not exist.
    """
    version = syscall(_CREATE_RULESET, 0, 0, _VERSION)
    handled = sum(rights for since, rights in _FILES if version >= since)
    network, scopes = (rights if version >= since else 0 for since, rights in (_NETWORK, _SCOPES))
    size = 24 if version >= _SCOPES[0] else 16 if version >= _NETWORK[0] else 8
    attributes = ctypes.create_string_buffer(struct.pack("QQQ", handled, network, scopes), 24)
    ruleset = syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    for rights, paths in ((_READ, readable), (_READ_DIR, listed), (_CHANGE, writable)):
        for path in paths:
            _allow(ruleset, path, rights & handled)
    no_new_privileges()
    syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH)
    # pathlib is not loaded in the sandbox
    rights &= -1 if os.path.isdir(path) else _OF_A_FILE  # noqa: PTH112
    rule = struct.pack("=Qi", rights, descriptor)
    syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.create_string_buffer(rule, 12), 0)
    os.close(descriptor)
