"""Of a spool there is one appliance, and it is not kept out by what isn't any more."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from construir_ftp.appliance import claim
from construir_ftp.appliance.supervisor import Stopped
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import ipc

# A supervisor that starts a part, which inherits its claim, and is killed.
KILLED = """
import os, signal, socket, subprocess, sys
from pathlib import Path
from construir_ftp.appliance import claim
reader, writer = socket.socketpair()
with claim.hold(Path(sys.argv[1]), reader) as held:
    part = subprocess.Popen(["sleep", "1000"], pass_fds=[held], stdout=subprocess.DEVNULL)
    print(part.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def part(tmp_path: Path) -> Iterator[int]:
    said = subprocess.run([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, check=False).stdout
    yield int(said)
    with suppress(ProcessLookupError):
        os.kill(int(said), signal.SIGKILL)


def test_parts_that_do_not_end_are_told_of_after_a_time(tmp_path: Path, part: int) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        with (
            pytest.raises(ConstruirError, match="parts of an appliance that was killed still work"),
            claim.hold(tmp_path, reader, patience_s=0.2),
        ):
            pass
        os.kill(part, signal.SIGKILL)
        with claim.hold(tmp_path, reader):
            pass


def test_a_stop_ends_the_waiting(tmp_path: Path, part: int) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.send(b"!")
        with pytest.raises(Stopped), claim.hold(tmp_path, reader):
            pass


def test_a_second_one_in_the_same_spool_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    reader, writer = socket.socketpair()
    with (
        reader,
        writer,
        claim.hold(tmp_path, reader),
        pytest.raises(ConstruirError, match="another runner already works on"),
        claim.hold(tmp_path, reader),
    ):
        pass


@contextmanager
def held_elsewhere(path: Path) -> Iterator[None]:
    """Hold a file as another computer does: there is a process of the same number here, which began as long ago."""
    with ipc.hold(path) as file:
        claim._sign(file)
        pid, started, _, _ = path.read_text().split()
        path.write_text(f"{pid} {started} another-boot far.example.org\n")
        yield


def test_process_of_another_computer_is_not_taken_for_one_of_ours(tmp_path: Path) -> None:
    """The same number, and the same time since the boot, are had by chance where two computers have one spool."""
    reader, writer = socket.socketpair()
    with reader, writer, held_elsewhere(tmp_path / claim.FILE), held_elsewhere(tmp_path / f"{claim.FILE}-ftp"):
        assert (claim.holder(tmp_path), claim.holder(tmp_path, "ftp")) == (0, 0)
        with (
            pytest.raises(ConstruirError, match=f"that of process {os.getpid()} on far.example.org; stop it"),
            claim.hold(tmp_path, reader),
        ):
            pass
        with (
            pytest.raises(ConstruirError, match=f"another ftp, process {os.getpid()} on far.example.org, already"),
            claim.hold_alone(tmp_path, "ftp"),
        ):
            pass
    with claim.hold_alone(tmp_path, "ftp"):
        assert claim.holder(tmp_path, "ftp") == os.getpid()
