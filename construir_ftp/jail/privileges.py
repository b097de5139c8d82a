"""What a process gives up by itself, for good, before it does something dangerous: prctl(2), setrlimit(2), seccomp(2).

Nothing here starts a program or needs a library beside the standard one: it is for processes that have to stay small.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Mapping

from construir_ftp.errors import ConstruirError

# linux/prctl.h, linux/seccomp.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION_BYTES = 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog (linux/filter.h)."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when the thread that started it, in process `parent`, ends.

    Raises ConstruirError if that has happened already.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise ConstruirError("the process that started this one has ended")


def be_called(name: str) -> None:
    """What ps(1) and the kernel's log call this thread; 15 characters."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def hide_memory() -> None:
    """Nobody without privileges may look into this process, or dump it (PR_SET_DUMPABLE)."""
    _prctl(_PR_SET_DUMPABLE, 0)


def limit(ceilings: Mapping[int, tuple[int, int]]) -> None:
    """Lower limits (RLIMIT_...) to these, soft and hard; one that is lower already stays."""
    for what, (soft, hard) in ceilings.items():
        present = resource.getrlimit(what)[1]
        if present != resource.RLIM_INFINITY:
            soft, hard = min(soft, present), min(hard, present)
        resource.setrlimit(what, (soft, hard))


def obey(program: bytes) -> None:
    """Put this thread, and all it ever starts, under a system call filter (jail.seccomp makes them)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    words = _Program(len(program) // _INSTRUCTION_BYTES, program)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(words))


def _prctl(what: int, value: object, pointer: object = 0) -> None:
    arguments = [ctypes.c_ulong(word) if isinstance(word, int) else word for word in (value, pointer, 0, 0)]
    if _libc.prctl(what, *arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({what}): {os.strerror(number)}")
