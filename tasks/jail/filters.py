"""The system calls that the kernel refuses a candidate: a seccomp filter.

A candidate may compute, read what is readable and start threads. It may not start processes or programs, signal or
trace others, open sockets or create memory that no limit counts. Numbers: <asm/unistd.h> of x86_64 and of the generic
table (aarch64).
"""

import ctypes
import platform
import struct
from collections.abc import Callable, Iterable, Sequence
from ctypes import addressof
from typing import Any

from tasks.jail.kernel import no_new_privileges, prctl

Step = tuple[int, int, int, int]

_DENIED: dict[
    str, tuple[int | None, int | None]
] = {  # name: (x86_64, aarch64); None where the architecture has no such call
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
    "socket": (41, 198),
    "bind": (49, 200),
    "connect": (42, 203),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "vhangup": (153, 58),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    # what Landlock does not cover: attributes of files, and System V objects of the same user
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "shmctl": (31, 195),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "msgctl": (71, 187),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "inotify_init1": (294, 26),
    "inotify_init": (253, None),
    "inotify_add_watch": (254, 27),
    "sync": (162, 81),
    "syncfs": (306, 267),
}
_NEEDED_BY_SERVER = frozenset({"fork", "vfork", "chmod", "fchmod", "fchmodat", "fchmodat2"})
_CLONE, _CLONE3, _KILL, _TGKILL, _PRLIMIT, _PRCTL = (56, 220), (435, 435), (62, 129), (234, 131), (302, 261), (157, 167)
_FCNTL, _IOCTL, _SOCKETPAIR = (72, 25), (16, 29), (53, 199)
# F_SETOWN, F_SETSIG, F_SETOWN_EX send signals; F_SETLEASE and F_NOTIFY hold up others who use the file
_FCNTL_DENIED = (8, 10, 15, 1024, 1026)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what Python asks of a descriptor; others may change files
_IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_SOCKET_TYPE, _STREAM = 0xF, 1  # a datagram socket could be sent to any path
_ANY_PID = 0x7FFFFFFF  # above the largest process id of Linux
_FIRST_UNKNOWN = 463  # system calls that came after mseal, with numbers of every architecture
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH_*
_CLONE_THREAD = 0x00010000
# BPF_LD|W|ABS, BPF_JMP|JEQ, JGE, JSET, BPF_RET, BPF_ALU|AND
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_NUMBER, _ARCH, _ARGUMENT, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data
_ALLOW, _EPERM, _ENOSYS, _KILL_PROCESS = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP = 1, 22


def server_filter() -> bytes:
    """The BPF program for the server and all that it forks: what neither needs. Raises OSError on an architecture
    without a table.
    """
    column, program = _beginning()
    program += [(_AT_LEAST, 0, 1, _FIRST_UNKNOWN), (_RETURN, 0, 0, _ENOSYS)]
    program += _refused(column, _DENIED.keys() - _NEEDED_BY_SERVER)
    program += _when(_CLONE3[column], [(_RETURN, 0, 0, _ENOSYS)])  # its flags are out of reach; libc then uses clone
    program += _only(_IOCTL[column], [(_LOAD, 0, 0, _SECOND)], _IOCTL_ALLOWED)
    program += _only(_SOCKETPAIR[column], [(_LOAD, 0, 0, _SECOND), (_AND, 0, 0, _SOCKET_TYPE)], (_STREAM,))
    tests = [step for value in _FCNTL_DENIED for step in ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, _EPERM))]
    program += _when(_FCNTL[column], [(_LOAD, 0, 0, _SECOND), *tests])
    return _packed(program)


def candidate_filter() -> Callable[[int], None]:
    """A function that puts this process, by its number, under the candidate's filter, on top of the server's.

    It is built before the fork. The filter is short, because the kernel goes through it once for every system call that
    there is, for every candidate.
    """
    code, header = _in_memory(_filter_of_any())
    words = memoryview(code).cast("B").cast("I")
    places = [place for place, word in enumerate(words) if word == _ANY_PID]

    def restrict_candidate(pid: int) -> None:
        for place in places:
            words[place] = pid
        prctl(_PR_SET_SECCOMP, 2, addressof(header))

    return restrict_candidate


def _filter_of_any() -> bytes:
    column, program = _beginning()
    program += _refused(column, _NEEDED_BY_SERVER)
    program += _when(
        _CLONE[column], [(_LOAD, 0, 0, _ARGUMENT), (_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _EPERM)]
    )
    program += _when(
        _PRCTL[column], [(_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 0, 1, _PR_SET_PDEATHSIG), (_RETURN, 0, 0, _EPERM)]
    )
    for numbers, own in ((_KILL, (_ANY_PID,)), (_TGKILL, (_ANY_PID,)), (_PRLIMIT, (0, _ANY_PID))):
        program += _only(numbers[column], [(_LOAD, 0, 0, _ARGUMENT)], own)
    return _packed(program)


def _beginning() -> tuple[int, list[Step]]:
    """The column of the tables for this machine, and the steps that load the call's number."""
    try:
        column, arch = _ARCHITECTURES[platform.machine()]
    except KeyError:
        raise OSError(f"no table of system calls for {platform.machine()}") from None
    steps: list[Step] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL_PROCESS)]
    steps.append((_LOAD, 0, 0, _NUMBER))
    if column == 0:
        steps += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL_PROCESS)]  # the x32 calls have other numbers
    return column, steps


def _refused(column: int, names: Iterable[str]) -> list[Step]:
    numbers = sorted(number for name in names if (number := _DENIED[name][column]) is not None)
    return [step for number in numbers for step in ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM))]


def _only(number: int, load: Sequence[Step], allowed: Sequence[int]) -> list[Step]:
    """A system call whose argument, as `load` gets it, must be one of `allowed`."""
    tests = [(_EQUAL, len(allowed) - i, 0, value) for i, value in enumerate(allowed)]
    return _when(number, [*load, *tests, (_RETURN, 0, 0, _EPERM)])


def _when(number: int, steps: Sequence[Step]) -> list[Step]:
    """`steps` for one system call; one that they do not refuse is allowed."""
    body = [*steps, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def _packed(program: Sequence[Step]) -> bytes:
    return b"".join(struct.pack("HBBI", *step) for step in (*program, (_RETURN, 0, 0, _ALLOW)))


def _in_memory(program: bytes) -> tuple[Any, Any]:
    """The program and struct sock_fprog, which points at it."""
    code = ctypes.create_string_buffer(program, len(program))
    return code, ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, addressof(code)))


def restrict(program: bytes) -> None:
    """From here on this thread and what it starts live under the filter. Raises OSError where the kernel has none."""
    _code, header = _in_memory(program)
    no_new_privileges()
    prctl(_PR_SET_SECCOMP, 2, addressof(header))
