"""A real appliance for whole-system tests: `construir serve` on a port of its own, driven by real FTP clients."""

import ftplib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from construir_ftp.appliance.supervisor import PARTS
from construir_ftp.jobs import places
from tests.support.ftpclient import users_text
from tests.support.places import PROJECT

NAME, PASSWORD = "alice", "correct horse"
# For an appliance that lives for a job or two: to build a template, and to keep machines waiting, takes longer than to
# boot one for each. No job of a test comes near its time, however busy the host is, but where that is what is tested.
CONFIG = """
[spool]
min_free = "64MiB"
[machine]
warm = false
timeout = "10min"
boot_timeout = "60s"
log_head = "64KiB"
log_tail = "64KiB"
[runner]
slots = 2
grace = "500ms"
"""
# As it is by default.
WARM = CONFIG.replace("warm = false\n", "")
_UP_S = 30
_RESULT_S = 120


def construir(
    *arguments: str | Path, timeout_s: float = _RESULT_S, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, its output captured as text; a test that wants success passes check=True."""
    argv = [sys.executable, "-m", "construir_ftp", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, **options)


def copy_program(place: Path) -> None:
    """Construir and all it needs, for a Python of this version to import from `place`, wherever that is brought."""
    shutil.copytree(sysconfig.get_path("purelib"), place, dirs_exist_ok=True)
    for part in ("construir_ftp", "base-image"):
        shutil.copytree(PROJECT / part, place / part)


def send(ftp: ftplib.FTP, upload: Path, name: str | None = None) -> str:
    """Send a job over a session; return the id that the reply names."""
    with upload.open("rb") as file:
        reply = ftp.storbinary(f"STOR /queue/{name or upload.name}", file)
    place = r"(?:number \d+ in the queue|already being run)"
    match = re.fullmatch(rf"226 Accepted as job (\S+), {place}; its result will be in /done/\1/", reply)
    assert match, reply
    return match[1]


def running(spool: Path, job_id: str) -> Path:
    """Where a job is while it runs; it need not be there yet, or any more."""
    return places.find(spool, "running", job_id) or spool / "running" / "nobody" / job_id


class Appliance:
    """A running appliance, its spool, and its address."""

    def __init__(self, place: Path, config: str = CONFIG, up_s: float = _UP_S) -> None:
        self.spool = place / "spool"
        self.config = place / "construir.toml"
        self.config.write_text(config)
        self.log = place / "appliance.log"
        self.port, self._up_s = 0, up_s
        self.program = [sys.executable, "-m", "construir_ftp"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, within: Sequence[str] = ()) -> None:
        """Start it, by the command `within` if there is one, and wait until its FTP server says where it listens."""
        self.spool.mkdir(exist_ok=True)
        users = self.spool / "users.toml"
        if not users.exists():
            users.write_text(users_text(NAME, password=PASSWORD))
        argv = [*within, *self.program, "serve", f"--port={self.port}"]
        argv += [f"--config={self.config}", f"--spool={self.spool}"]
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.find_port(before)

    def find_port(self, log_bytes: int) -> None:
        """Wait until the log says, after its first `log_bytes`, where the FTP server listens."""
        deadline = time.monotonic() + self._up_s
        while not (found := re.search(rb"FTP on 127\.0\.0\.1 port (\d+)", self.log.read_bytes()[log_bytes:])):
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        self.port = int(found[1])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    @contextmanager
    def running(self, within: Sequence[str] = ()) -> Iterator[Self]:
        """Start it, and stop it on leaving the context, whatever has become of it."""
        self.start(within)
        try:
            yield self
        finally:
            assert self.process is not None
            if self.process.poll() is None:
                self.stop()

    def parts(self) -> dict[str, int]:
        """The pids of its living children, by name."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        lines = {}
        for pid in children:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
                lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return {name: int(pid) for pid, words in lines.items() for name in PARTS if name.encode() in words}

    @contextmanager
    def session(self, name: str = NAME, password: str = PASSWORD) -> Iterator[ftplib.FTP]:
        """A logged-in FTP session."""
        with ftplib.FTP() as ftp:
            ftp.connect("127.0.0.1", self.port, timeout=60)
            ftp.login(name, password)
            yield ftp

    def submit(self, upload: Path, name: str | None = None, contributor: str = NAME) -> str:
        """Send a job; return the id that the reply names."""
        with self.session(contributor) as ftp:
            return send(ftp, upload, name)

    def place(self, job: str) -> Path:
        """Where a job is while it runs."""
        return running(self.spool, job)

    def output(self, job: str) -> bytes:
        """What a job that runs has printed; nothing of one that doesn't."""
        with suppress(FileNotFoundError):
            return (self.place(job) / "output.log").read_bytes()
        return b""

    def wait_until_running(self, job: str) -> None:
        """Wait until the job has printed something."""
        deadline = time.monotonic() + _RESULT_S
        while not self.output(job):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait(self, job: str, patience_s: float = _RESULT_S) -> dict[str, Any]:
        """Wait for the job's result, and return result.json, by anonymous FTP."""
        deadline = time.monotonic() + patience_s
        while not (self.spool / "done" / job).exists():
            assert time.monotonic() < deadline, f"no result of {job}: {self.log.read_text()[-4000:]}"
            time.sleep(0.05)
        return msgspec.json.decode(self.fetch(job, "result.json"), type=dict[str, Any])

    def wait_until_logged(self, words: str, times: int = 1) -> None:
        """Wait until its log has said this so many times."""
        deadline = time.monotonic() + _RESULT_S
        while self.log.read_text().count(words) < times:
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.05)

    def fetch(self, job: str, name: str) -> bytes:
        """A file of a result, by anonymous FTP."""
        content = io.BytesIO()
        with self.session("anonymous", "me@example.org") as ftp:
            ftp.retrbinary(f"RETR /done/{job}/{name}", content.write)
        return content.getvalue()

    def states(self) -> dict[str, list[str]]:
        """What is in each directory of the spool."""
        names = ("incoming", "queue", "running", "done")
        return {name: places.names(self.spool, name) for name in names}


@contextmanager
def paused_runner(appliance: Appliance) -> Iterator[None]:
    """Within, no job is taken, and the end of none is noticed."""
    runner = appliance.parts()["runner"]
    os.kill(runner, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(runner, signal.SIGCONT)
