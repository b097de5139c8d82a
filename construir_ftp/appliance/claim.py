"""Who is the appliance of a spool: one supervisor, and the parts that it has started.

    <spool>/appliance   locked by the supervisor, and by each of its parts as long as it lives; says who the first is
    <spool>/appliance-PART   locked by a part that was started by itself, as systemd does

A supervisor that is killed leaves parts that see it, and end. Whoever comes next waits for them, but not for a
supervisor that lives, nor for one of another computer, of which nobody here can tell. Nothing here starts or ends a
process.
"""

import logging
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from construir_ftp import process
from construir_ftp.appliance.supervisor import Stopped
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import ipc

log = logging.getLogger("construir")

FILE = "appliance"
_PATIENCE_S = 120.0
_LOOK_S = 0.1


class _Signatory(NamedTuple):
    """Who holds a claim, by its own words: the process, whether it lives, and the computer's name if it isn't ours.

    Nothing is known of a process of another computer, so none lives.
    """

    pid: int
    is_alive: bool
    elsewhere: str


# What a claim says while its holder writes it.
_NOBODY = _Signatory(0, is_alive=False, elsewhere="")


@contextmanager
def hold(spool: Path, stop: socket.socket, patience_s: float = _PATIENCE_S) -> Iterator[int]:
    """Be the appliance of a spool; gives a descriptor to be inherited by the parts.

    Waits for the parts of one that was killed. Raises ConstruirError where one lives, or where those parts don't end in
    time, and Stopped where `stop` becomes readable meanwhile.
    """
    path, deadline_s, has_waited = spool / FILE, time.monotonic() + patience_s, False
    with ExitStack() as stack:
        while True:
            try:
                file = stack.enter_context(ipc.hold(path))
                break
            except BlockingIOError as held:
                _demand_waiting(path, spool, deadline_s, held)
                if not has_waited:
                    log.info("the appliance before this one was killed: waiting for its parts to end")
                    has_waited = True
                if select.select([stop], [], [], _LOOK_S)[0]:
                    raise Stopped from held
            except OSError as error:
                raise ConstruirError(f"{path}: {error.strerror}; choose another spool with --spool") from error
        _sign(file)
        yield file.fileno()


@contextmanager
def hold_alone(spool: Path, part: str) -> Iterator[None]:
    """Be a part of the appliance of a spool, started by itself. Raises ConstruirError if there is one already."""
    path = _file(spool, part)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(ipc.hold(path))
        except BlockingIOError as held:
            who = _process(_signatory(path))
            raise ConstruirError(f"another {part}, {who}, already works on {spool}; stop it first") from held
        except OSError as error:
            raise ConstruirError(f"{path}: {error.strerror}; choose another spool with --spool") from error
        _sign(file)
        yield


def _file(spool: Path, part: str) -> Path:
    return spool / (f"{FILE}-{part}" if part else FILE)


def holder(spool: Path, part: str = "") -> int:
    """The process that is the appliance of a spool, or a part by itself; 0 if none lives, on this computer."""
    try:
        signatory = _signatory(_file(spool, part))
    except OSError:
        return 0
    return signatory.pid if signatory.is_alive else 0


def _demand_waiting(path: Path, spool: Path, deadline_s: float, held: BlockingIOError) -> None:
    """Raise ConstruirError if there is nothing to wait for, or not any longer."""
    signatory = _signatory(path)
    if signatory.is_alive or signatory.elsewhere:
        who = _process(signatory)
        raise ConstruirError(
            f"another runner already works on {spool}, that of {who}; stop it, or choose another with --spool"
        ) from held
    if time.monotonic() > deadline_s:
        raise ConstruirError(
            f"parts of an appliance that was killed still work on {spool}; see which, with: fuser {path}"
        ) from held


def _process(signatory: _Signatory) -> str:
    return f"process {signatory.pid}" + (f" on {signatory.elsewhere}" if signatory.elsewhere else "")


def _sign(file: IO[bytes]) -> None:
    file.truncate(0)  # it is open for appending
    file.write(f"{os.getpid()} {_started(os.getpid())} {_kernel()} {socket.gethostname()}\n".encode())
    file.flush()


def _signatory(path: Path) -> _Signatory:
    words = path.read_text(errors="replace").split()
    if len(words) != 4 or not words[0].isdecimal():
        return _NOBODY
    pid, started, kernel, name = int(words[0]), *words[1:]
    if kernel != _kernel():
        return _Signatory(pid, is_alive=False, elsewhere=name)
    return _Signatory(pid, is_alive=_started(pid) == started, elsewhere="")


def _kernel() -> str:
    """Among whose processes one has its number: this start of the kernel (random(4)), and in it this namespace."""
    return f"{process.boot_id()}/{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """When a process began (proc(5), stat, field 22), in ticks since the boot, so that a pid used again is another's;
    empty if there is none, or if it has ended and waits to be asked for.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
