"""An appliance and nodes that share its spool, as if each were on a computer of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from construir_ftp.jobs import places
from tests.support.appliance import CONFIG, Appliance

LEASE_S = 8.0
_PATIENCE_S = 300.0
# A slot each, so that what runs elsewhere is seen; a lease that a busy host keeps.
FARM = CONFIG.replace("slots = 2", "slots = 1") + f'[nodes]\nlease = "{LEASE_S:g}s"\nrenew = "500ms"\nadmit = ["*"]\n'


def wait_until(is_so: Callable[[], object], log: Callable[[], str]) -> None:
    """Wait for what lasts once it is so."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, log()
        time.sleep(0.05)


class Node:
    """`construir serve node`, in a process of its own."""

    def __init__(self, front: Appliance, name: str, config: Path | None = None) -> None:
        self.front, self.name, self.config = front, name, config or front.config
        self.log = front.config.with_name(f"{name}.log")
        self.program = front.program
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until the front knows that it lives."""
        told = self.front.log.read_text().count(f"node {self.name} is there")
        self.launch()
        self.front.wait_until_logged(f"node {self.name} is there", told + 1)

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        argv = [*self.program, "serve", "node", f"--name={self.name}"]
        argv += [f"--config={self.config}", f"--spool={self.front.spool}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def send(self, what: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(what)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end."""
        self.send(how)
        assert self.process is not None
        return self.process.wait(60)

    def end(self) -> None:
        """Stop it, also where it stands still; nothing if it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.stop()

    def wait_until_logged(self, words: str) -> None:
        """Wait until its log has said this."""
        wait_until(lambda: words in self.log.read_text(), self.log.read_text)

    def holding(self) -> list[Path]:
        """The directories of its starts in running/."""
        found = places.directories(self.front.spool, "running")
        return [path for path in found if places.node_of(path) == self.name]

    def jobs(self) -> list[Path]:
        """Where the jobs that it holds are."""
        return [path / job for path in self.holding() for job in places.names_in(path)]

    def wait_for_job(self, is_so: Callable[[Path], object] = Path.exists) -> Path:
        """Where the job is that it has, once that is so of it."""
        wait_until(lambda: any(is_so(job) for job in self.jobs()), self._logs)
        return self.jobs()[0]

    def _logs(self) -> str:
        return self.front.log.read_text() + self.log.read_text()


@contextmanager
def node(
    front: Appliance, name: str = "far", config: Path | None = None, program: Sequence[str] = ()
) -> Iterator[Node]:
    """One that lives while the context lasts, or until it is ended; `program` is another one than the front's."""
    there = Node(front, name, config)
    there.program = [*program] or front.program
    try:
        there.start()
        yield there
    finally:
        there.end()


def results(front: Appliance) -> list[str]:
    """The ids of all jobs that are done."""
    return sorted(os.listdir(front.spool / "done"))  # noqa: PTH208 - names are what is wanted
