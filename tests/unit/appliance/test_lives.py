"""lives: how often a part came to a bad end, whatever end that was."""

import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp.appliance import lives
from construir_ftp.jobs.spool import Spool

LIVE = """
import sys
from pathlib import Path
from construir_ftp.appliance import lives
with lives.living(Path(sys.argv[1]), "ftp"):
    print("lives", flush=True)
    sys.stdin.read()
"""


def test_good_ends_are_not_counted(spool: Spool) -> None:
    for _ in range(3):
        with lives.living(spool.path, "ftp"):
            assert lives.crashes(spool.path) == {"ftp": 0}
    assert lives.crashes(spool.path) == {"ftp": 0}


def test_a_kill_and_an_exception_are_counted_by_the_next_start(spool: Spool) -> None:
    argv = [sys.executable, "-c", LIVE, str(spool.path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"lives\n"
        child.kill()
    with pytest.raises(ValueError, match="bug"), lives.living(spool.path, "ftp"):
        assert lives.crashes(spool.path) == {"ftp": 1}
        raise ValueError("bug")
    with lives.living(spool.path, "ftp"), lives.living(spool.path, "runner"):
        assert lives.crashes(spool.path) == {"ftp": 2, "runner": 0}


def test_a_host_that_was_started_anew_is_no_fault_of_a_part(spool: Spool) -> None:
    lives._note(spool.path, "ftp", lives.Life("another boot", is_alive=True, crashes=3))
    with lives.living(spool.path, "ftp"):
        assert lives.crashes(spool.path) == {"ftp": 3}


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"crashes": "many"}'])
def test_a_damaged_note_counts_nothing(content: bytes, spool: Spool) -> None:
    Path(spool.path / "part-ftp").write_bytes(content)
    with lives.living(spool.path, "ftp"):
        assert lives.crashes(spool.path) == {"ftp": 0}
