"""The judges' parent: a program in a jail that waits for uploads, and has a child of its own look at each.

    construir_ftp.intake.judge_server LIMITS FILTER     standard input is a socket (SOCK_SEQPACKET)

Starting Python and libmagic costs a tenth of a second, a fork a few milliseconds. With each message come two
descriptors: the upload, and a socket by which the judge is told how far it has grown (growth) and answers (verdict).
The parent never reads an upload, so every child begins as innocent as the first did; a child reads one and ends.
When the other end of the first socket is closed, this process waits for its judges and exits.
"""

import gc
import os
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from types import FrameType
from typing import IO, NoReturn

import msgspec

from construir_ftp.config import GateSection
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake import judge, verdict
from construir_ftp.intake.verdict import AbandonedError, Answer, Refusal, Told
from construir_ftp.jail import privileges

# Address space of Python with all that is imported here, generously; limits.max_memory comes on top.
_PYTHON_BYTES = 256 * 2**20
# From the polite end of a judge's processor time to the rude one.
_LAST_WORDS_S = 5
# The upload, and twice the socket: as standard output and error it carries the last words of libraries.
_JUDGES_FILES = 3
_MOST_FILES = 1024


class Setup(msgspec.Struct, frozen=True):
    """What holds for every upload; `filter` is what seccomp is given, if anything."""

    limits: GateSection
    filter: bytes


def main() -> None:
    """Take in uploads until nobody is left to send any."""
    setup = Setup(verdict.decode_limits(sys.argv[1]), bytes.fromhex(sys.argv[2]))
    try:
        judge.prepare()
    except ConstruirError as error:
        sys.exit(str(error))
    privileges.hide_memory()
    privileges.be_called("judge-server")
    signal.signal(signal.SIGCHLD, _reap)
    # What is shared with the children stays shared, since no collection writes to it.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=0) as control:
        while (received := _receive(control)) is not None:
            _begin(setup, *received)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(ChildProcessError):
        while True:
            _note(os.wait()[1])


def _receive(control: socket.socket) -> tuple[int, int, int] | None:
    """The next upload, its socket, and what its judge's priority is lowered by; None when there will be no more."""
    said, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    return (descriptors[0], descriptors[1], verdict.niceness(said)) if descriptors else None


def _reap(_number: int, _frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _note(ended[1])


def _note(status: int) -> None:
    """Tell the server's log of a judge that failed. SIGKILL is how one ends that is needed no longer."""
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        os.write(2, f"a judge ended with status {code}\n".encode())


def _begin(setup: Setup, file: int, channel: int, niceness: int) -> None:
    parent = os.getpid()
    try:
        if not os.fork():
            os.nice(niceness)
            _judge(setup, parent, file, channel)
    except OSError as error:
        os.write(2, f"no judge can be started: {error.strerror}\n".encode())
    finally:
        os.close(file)
        os.close(channel)


# -- the judge's process ---------------------------------------------------------------------------------


def _judge(setup: Setup, parent: int, file: int, channel: int) -> NoReturn:
    """Be the judge of one upload. Whatever happens, nothing returns into the parent's code."""
    status = 1
    try:
        privileges.die_with_parent(parent, signal.SIGKILL)
        wire = _greet(file, channel)
        privileges.be_called("construir-judge")
        with open(0, "rb", buffering=0, closefd=False) as upload:
            _confine(setup)
            wire.send(verdict.encode_answer(_answer(setup, upload, wire)))
        status = 0
    except (AbandonedError, BrokenPipeError, ConnectionResetError):
        status = 0
    except BaseException:  # noqa: BLE001 - it is logged, and the process ends
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _greet(file: int, channel: int) -> socket.socket:
    """Leave nothing open but the upload and the socket; hand over what this process can be ended by (pidfd_open(2)).

    Nothing of the upload has been read yet, so that what is handed over is this process and no other.
    """
    os.dup2(file, 0, inheritable=False)
    os.dup2(channel, 1, inheritable=False)
    os.dup2(channel, 2, inheritable=False)
    os.closerange(3, _MOST_FILES)
    wire = socket.socket(fileno=1)
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(wire, [verdict.GREETING], [pidfd])
    os.close(pidfd)
    return wire


def _confine(setup: Setup) -> None:
    """Give up whatever isn't needed: a judge can read, compute, answer and end."""
    seconds = verdict.patience_s(setup.limits)
    memory_bytes = setup.limits.max_memory + _PYTHON_BYTES
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, lambda *_: _give_up(setup.limits))
    privileges.limit(
        {
            resource.RLIMIT_CPU: (seconds, seconds + _LAST_WORDS_S),
            resource.RLIMIT_AS: (memory_bytes, memory_bytes),
            **dict.fromkeys((resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC), (0, 0)),
            resource.RLIMIT_NOFILE: (_JUDGES_FILES, _JUDGES_FILES),
        }
    )
    if setup.filter:
        privileges.obey(setup.filter)


def _give_up(limits: GateSection) -> NoReturn:
    raise verdict.too_late(limits)


def _answer(setup: Setup, file: IO[bytes], wire: socket.socket) -> Answer:
    try:
        return judge.judge(UploadReader(file, Told(wire)), setup.limits)
    except RefusedError as error:
        return Refusal(reason=str(error), reply=error.reply, is_cut=error.is_cut)
    except MemoryError:
        return Refusal(reason="looking at it takes more memory than is given here", reply=550)
    except OSError as error:
        return Refusal(reason=f"the server can't read it back ({error.strerror}); try again later", reply=452)


if __name__ == "__main__":
    main()
