"""What comes out of jails, whose programs have read hostile bytes: verdicts, artifacts, a kernel's answers; a hello."""

import socket
from collections.abc import Callable

import msgspec

from construir_ftp.errors import CommandError, MachineUnavailableError
from construir_ftp.ftp import client_hello
from construir_ftp.intake import verdict
from construir_ftp.jobs import outputs
from construir_ftp.machine.mconsole import Mconsole
from tests.fuzz.targets import alone, demand_line


def _verdict(data: bytes) -> None:
    answer = verdict.decode_answer(data)
    assert verdict.decode_answer(verdict.encode_answer(answer)) == answer
    if isinstance(answer, verdict.Verdict):
        answer.naming("x.img")


def _artifact(data: bytes) -> None:
    found = outputs.decode(data)
    if isinstance(found, outputs.Found):
        assert "/" not in found.name and found.name not in (".", "..")


def _answer(data: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.send(data)
        try:
            Mconsole(ours, 5.0).ask("version")
        except (CommandError, MachineUnavailableError) as error:
            demand_line(str(error))


def _hello(data: bytes) -> None:
    named = client_hello.protocols(data)
    assert named is None or all(isinstance(name, bytes) for name in named)


_READERS: tuple[Callable[[bytes], None], ...] = (_verdict, _artifact, _answer, _hello)


def attempt(data: bytes) -> None:
    """The first byte says which of them it is."""
    try:
        _READERS[data[0] % len(_READERS) if data else 0](data[1:])
    except msgspec.MsgspecError:
        return


target = alone(attempt)
