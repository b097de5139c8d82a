"""Of a spool there is one appliance, and it is not kept out by what isn't any more."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from construir_ftp.appliance import claim
from construir_ftp.appliance.supervisor import Stopped
from construir_ftp.errors import ConstruirError

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
