"""`construir top` on a real terminal, by FTP and of a spool here; and where there is no terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from construir_ftp.jobs.spool import Spool
from tests.support.appliance import Appliance, construir
from tests.support.ftpclient import LONG_S, House
from tests.support.results import publish


class Terminal:
    """A pseudo-terminal with the command on it, and what it has written there so far."""

    def __init__(self, *arguments: str, columns: int, lines: int) -> None:
        self._master, slave = pty.openpty()
        self.said = ""
        self.resize(columns, lines)
        self._before = termios.tcgetattr(slave)
        env = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CONSTRUIR_SERVER")
        }
        # In a session of its own, with this terminal for Ctrl-C.
        argv = ["setsid", "--ctty", sys.executable, "-m", "construir_ftp", "top", *arguments]
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env={**env, "TERM": "xterm"})
        self._slave = slave

    def resize(self, columns: int, lines: int) -> None:
        """Make it of another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: str) -> None:
        """Press a key; what was said before is forgotten."""
        self.said = ""
        os.write(self._master, key.encode())

    def wait_for(self, words: str, *, without: str = "") -> Self:
        """Read until the last screen, which begins with the cursor's way home, has these words, and not those."""
        deadline = time.monotonic() + LONG_S
        while not (words in (screen := self.said.rpartition("\x1b[H")[2]) and (not without or without not in screen)):
            assert time.monotonic() < deadline, self.said[-3000:]
            if select.select([self._master], [], [], 1.0)[0]:
                self.said += os.read(self._master, 65536).decode()
        return self

    def close(self) -> int:
        """Its exit status; the terminal is as it was before."""
        deadline = time.monotonic() + LONG_S
        while (is_more := bool(select.select([self._master], [], [], 0.2)[0])) or self.process.poll() is None:
            assert time.monotonic() < deadline, self.said[-3000:]
            if is_more:
                self.said += os.read(self._master, 65536).decode()
        assert termios.tcgetattr(self._slave) == self._before
        os.close(self._slave)
        os.close(self._master)
        return self.process.wait(LONG_S)


@contextmanager
def top(*arguments: str, columns: int = 120, lines: int = 40) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, columns=columns, lines=lines)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_on_a_terminal_it_is_live_sorts_resizes_and_leaves_all_as_it_was(spool: Spool) -> None:
    publish(spool, 1, "bob")
    with top("--here", f"--spool={spool.path}", "--every=200ms") as terminal:
        terminal.wait_for("ended (UTC)").wait_for("0000-job1").wait_for("sort: time")
        publish(spool, 2)
        terminal.wait_for("0000-job2")
        terminal.resize(80, 24)
        terminal.wait_for("0000-job2", without="ended (UTC)")
        terminal.press("s")
        terminal.wait_for("sort: job")
        terminal.press("q")
        assert terminal.close() == 0
    assert re.search(r"\x1b\[\?1049l", terminal.said), "the screen that was there before is back"


def test_ctrl_c_ends_it_with_130_and_leaves_the_terminal_as_it_was(spool: Spool) -> None:
    publish(spool, 1, "bob")
    with top("--here", f"--spool={spool.path}") as terminal:
        terminal.wait_for("0000-job1")
        terminal.press("\x03")
        assert terminal.close() == 130
    assert re.search(r"\x1b\[\?1049l", terminal.said), "the screen that was there before is back"
    assert re.search(r"\x1b\[\?25h", terminal.said), "so is the cursor"
    assert "Traceback" not in terminal.said


def test_by_ftp_it_shows_what_anyone_may_see_and_says_when_the_server_is_gone(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path)
    publish(Spool.prepare(appliance.spool), 1, "bob")
    argv = [sys.executable, "-m", "construir_ftp", "serve", "ftp", "--port=0"]
    argv += [f"--config={appliance.config}", f"--spool={appliance.spool}"]
    with appliance.log.open("ab") as log, subprocess.Popen(argv, stdout=log, stderr=log) as appliance.process:
        appliance.find_port(0)
        address = f"ftp://127.0.0.1:{appliance.port}"
        with top(f"--server={address}", "--every=200ms", columns=80, lines=24) as terminal:
            terminal.wait_for("0000-job1").wait_for(address)
            appliance.process.terminate()
            appliance.process.wait(LONG_S)
            terminal.wait_for("trying again")
            terminal.press("q")
            assert terminal.close() == 0


def test_without_a_terminal_it_prints_lines(house: House) -> None:
    publish(house.spool, 1, "bob")
    for where in (f"--server=ftp://127.0.0.1:{house.server.address[1]}", f"--spool={house.spool.path}"):
        done = construir("top", where, "--count=2", "--every=200ms", check=True)
        counts, job = done.stdout.splitlines()
        assert " no machine is there yet, 0 wait, " in counts
        assert job.endswith("-0000-job1 success")
        absent = "construir: no appliance runs here; start it with: construir serve\n"
        assert done.stderr == (absent if where.startswith("--spool") else "")


def test_a_server_that_was_never_there_is_told_in_a_line(tmp_path: Path) -> None:
    done = construir("top", "--server=ftp://127.0.0.1:1", "--count=1")
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert construir("top", f"--spool={tmp_path / 'none'}", "--count=1").returncode == 1


def test_jobs_of_a_server_without_any_says_so(house: House) -> None:
    for options, none in ((["--mine"], "nothing that construir has sent from this computer"), ([], "nothing")):
        done = construir("jobs", f"--server=ftp://127.0.0.1:{house.server.address[1]}", *options, check=True)
        told = f"construir: {none} waits, runs or is done there; to send a job: construir submit DIR\n"
        assert (done.stdout, done.stderr) == ("", told)
