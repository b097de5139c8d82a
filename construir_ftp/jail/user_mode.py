"""The system call filter of a user-mode kernel: what it and the processes of its guest need, and nothing else.

launch sets it in the jail before it becomes the kernel (base-image/uml/launch); the filter of every jail holds beside
it. Only for x86-64, as there is such a kernel for nothing else.

The kernel wants a socket for its management console, and binds it to a name. Neither happens: launch, which the
system call is passed on to (seccomp_unotify(2)), names a descriptor that the kernel has inherited, as
long as there is no job.
"""

import errno
import functools
import platform
from collections.abc import Sequence

from construir_ftp.jail import seccomp
from construir_ftp.jail.seccomp import (
    ALLOW,
    ANSWER,
    EQUAL,
    ERRNO,
    FIRST,
    LOAD,
    MACHINES,
    PR_SET_PDEATHSIG,
    SECOND,
    SIGKILL,
    THIRD,
    deny_new_namespaces,
    instruction,
    only,
)

_FIFTH, _SIXTH = 48, 56
_PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 15, 38
_AF_UNIX, _SOCK_DGRAM = 1, 2
_AT_EMPTY_PATH = 0x1000
# SECCOMP_RET_USER_NOTIF, and the two requests by which launch takes and answers (linux/seccomp.h).
_PASS_ON = 0x7FC00000
_ANSWERING = (0xC0502100, 0xC0182101)
# TCGETS, TCSETS, TIOCGWINSZ, TCGETS2, TCSETS2 (asm-generic/ioctls.h): what asks whether a descriptor is a terminal.
_TERMINAL = (0x5401, 0x5402, 0x5413, 0x802C542A, 0x402C542B)

# What a user-mode kernel 7.2 and the processes it makes were seen to use (strace(1)), by its numbers on x86-64, in the
# order of their frequency: its guest's processes wait for it and map its memory, its own threads read and write disks.
# It opens its disks by name, and has its memory and what it knows of itself in the jail's scratch place.
ALLOWED = {
    "futex": 202,
    "pread64": 17,
    "pwrite64": 18,
    "read": 0,
    "write": 1,
    "rt_sigreturn": 15,
    "rt_sigprocmask": 14,
    "timer_settime": 223,
    "sendmsg": 46,
    "recvmsg": 47,
    "recvfrom": 45,
    "poll": 7,
    "kill": 62,
    "epoll_wait": 232,
    "mmap": 9,
    "munmap": 11,
    "mprotect": 10,
    "madvise": 28,
    "brk": 12,
    "close": 3,
    "close_range": 436,
    "openat": 257,
    "access": 21,
    "statx": 332,
    "newfstatat": 262,
    "fstat": 5,
    "lseek": 8,
    "getdents64": 217,
    "readlink": 89,
    "fallocate": 285,
    "fsync": 74,
    "fdatasync": 75,
    "ftruncate": 77,
    "fcntl": 72,
    "dup": 32,
    "dup2": 33,
    "wait4": 61,
    "exit": 60,
    "exit_group": 231,
    "rt_sigaction": 13,
    "sigaltstack": 131,
    "rt_sigsuspend": 130,
    "seccomp": 317,
    "set_robust_list": 273,
    "set_tid_address": 218,
    "rseq": 334,
    "arch_prctl": 158,
    "epoll_create": 213,
    "epoll_create1": 291,
    "epoll_ctl": 233,
    "signalfd4": 289,
    "eventfd2": 290,
    "pipe2": 293,
    "memfd_create": 319,
    "timer_create": 222,
    "timer_gettime": 224,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "nanosleep": 35,
    "gettimeofday": 96,
    "time": 201,
    "getpid": 39,
    "gettid": 186,
    "tgkill": 234,
    "setsid": 112,
    "getrandom": 318,
    "uname": 63,
    "statfs": 137,
    "fstatfs": 138,
    "getcwd": 79,
    "chdir": 80,
    "mkdir": 83,
    "rmdir": 84,
    "unlink": 87,
    "getuid": 102,
    "geteuid": 107,
    "getgid": 104,
    "getegid": 108,
    "sched_yield": 24,
    "restart_syscall": 219,
}
# Those it may use in one way only.
PARTLY = {"socketpair": 53, "ioctl": 16, "execveat": 322, "prlimit64": 302, "sendto": 44}
# Those that are not made, though it is told that they were: a datagram socket of this host, and a name for it.
_SOCKET, _BIND = 41, 49


def outer() -> bytes | None:
    """The filter of the jail, which would deny what is for launch to answer."""
    return seccomp.program(spared=_SOCKET)


@functools.cache
def program(machine: str | None = None) -> bytes | None:
    """The narrow filter for a user-mode kernel: what it was not seen to use fails with EPERM.

    Nothing can be traced, no socket made but pairs of its own, no namespace, no limit changed, no program started by
    its name. What can be started is an open file, as the kernel does with a few instructions of its own for each
    process of its guest; such a program is under the same filter.
    """
    known = MACHINES.get(machine or platform.machine())
    if known is None or known.name != MACHINES["x86_64"].name:
        return None
    partly = PARTLY
    words = [
        *only(known.name),
        *(
            word
            for number in ALLOWED.values()
            for word in (instruction(EQUAL, number, if_not=1), instruction(ANSWER, ALLOW))
        ),
        *(instruction(EQUAL, known.clone3, if_not=1), instruction(ANSWER, ERRNO | errno.ENOSYS)),
        *deny_new_namespaces(known.clone),
        *_allow_little_prctl(known.prctl),
        *_allow_if(partly["socketpair"], FIRST, [_AF_UNIX]),
        *_allow_if(partly["ioctl"], SECOND, (*_TERMINAL, *_ANSWERING)),
        *_allow_if(partly["execveat"], _FIFTH, [_AT_EMPTY_PATH]),
        *_allow_if(partly["prlimit64"], THIRD, [0], and_high_word=True),
        # To whoever is at the other end, and nobody else.
        *_allow_if(partly["sendto"], _SIXTH, [0]),
        *(instruction(EQUAL, _BIND, if_not=1), instruction(ANSWER, ERRNO)),
        *_pass_on_socket(),
        instruction(ANSWER, ERRNO | errno.EPERM),
    ]
    return b"".join(words)


def _allow_little_prctl(prctl: int) -> list[bytes]:
    """Of prctl(2) a name, no new privileges, and PR_SET_PDEATHSIG with SIGKILL."""
    harmless = (_PR_SET_NAME, _PR_SET_NO_NEW_PRIVS)
    checks = [
        instruction(LOAD, FIRST),
        *(word for option in harmless for word in (instruction(EQUAL, option, if_not=1), instruction(ANSWER, ALLOW))),
        instruction(EQUAL, PR_SET_PDEATHSIG, if_not=3),
        instruction(LOAD, SECOND),
        instruction(EQUAL, SIGKILL, if_not=1),
        instruction(ANSWER, ALLOW),
        instruction(ANSWER, ERRNO | errno.EPERM),
    ]
    return [instruction(EQUAL, prctl, if_not=len(checks)), *checks]


def _allow_if(number: int, argument: int, values: Sequence[int], *, and_high_word: bool = False) -> list[bytes]:
    """A system call where one of its arguments, at this offset, is one of these; else it is denied."""
    high = [instruction(LOAD, argument + 4), instruction(EQUAL, 0, if_so=1), instruction(ANSWER, ERRNO | errno.EPERM)]
    checks = [
        *(high if and_high_word else []),
        instruction(LOAD, argument),
        *(word for value in values for word in (instruction(EQUAL, value, if_not=1), instruction(ANSWER, ALLOW))),
        instruction(ANSWER, ERRNO | errno.EPERM),
    ]
    return [instruction(EQUAL, number, if_not=len(checks)), *checks]


def _pass_on_socket() -> list[bytes]:
    """A datagram socket of this host is for launch to answer; all others are denied."""
    refuse = instruction(ANSWER, ERRNO | errno.EPERM)
    checks = [
        *(instruction(LOAD, FIRST), instruction(EQUAL, _AF_UNIX, if_so=1), refuse),
        *(instruction(LOAD, SECOND), instruction(EQUAL, _SOCK_DGRAM, if_so=1), refuse),
        instruction(ANSWER, _PASS_ON),
    ]
    return [instruction(EQUAL, _SOCKET, if_not=len(checks)), *checks]
