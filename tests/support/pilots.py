"""The part "pilots" of an appliance, beside a real Slurm, in its namespaces; and what it keeps."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from construir_ftp.jobs import pilots
from construir_ftp.jobs.pilots import Pilots
from construir_ftp.jobs.spool import Spool
from tests.support.slurm import Slurm

_LONG_S = 180
_LOOK_S = 0.1
# Times are short; a pilot asks for little, so that both nodes have room for two each.
CONFIG = """
[slurm]
max_pilots = 3
memory = "500MiB"
time = "5min"
every = "1s"
idle = "1s"
partition = "pilots"
"""


class Keeper:
    """The part, and the spool it keeps pilots for."""

    def __init__(self, slurm: Slurm, spool: Spool, config: str) -> None:
        self.slurm, self.spool = slurm, spool
        self.config = spool.path.parent / "construir.toml"
        self.config.write_text(config)
        self.log = spool.path.parent / "keeper.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        argv = [sys.executable, "-m", "construir_ftp", "serve", "pilots"]
        argv += [f"--config={self.config}", f"--spool={self.spool.path}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.slurm.words(*argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal, and wait for its end."""
        assert self.process is not None
        for child in children(self.process.pid):
            os.kill(child, how)
        self.process.wait(_LONG_S)

    def kept(self) -> Pilots:
        """What it keeps."""
        return pilots.read(self.spool.path)

    def states(self) -> list[str]:
        """How each pilot is."""
        return sorted(pilot.state for pilot in self.kept().pilots)

    def wait(self, is_so: Callable[[], object], what: str) -> None:
        """Wait for what lasts."""
        deadline_s = time.monotonic() + _LONG_S
        while not is_so():
            told = f"{self.kept()}\n{self.log.read_text()}\n{self.slurm.logs()}"
            assert time.monotonic() < deadline_s, f"not {what}: {told}"
            time.sleep(_LOOK_S)

    def wait_for_words(self, words: str, times: int = 1) -> None:
        """Wait until its log has said this so many times."""
        self.wait(lambda: self.log.exists() and self.log.read_text().count(words) >= times, words)

    def in_slurm(self) -> list[str]:
        """The names of this spool's pilots that Slurm has, and that have not ended."""
        prefix = f"construir-{self.kept().mark}-"
        names = [str(job["name"]) for job in self.slurm.living()]
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def names(kept: Pilots) -> list[str]:
    """The names of pilots."""
    return sorted(pilot.name for pilot in kept.pilots)


@contextmanager
def keeping(slurm: Slurm, spool: Spool, config: str = CONFIG) -> Iterator[Keeper]:
    """The part, which is stopped on leaving the context. There is a front meanwhile, which runs no jobs itself."""
    keeper = Keeper(slurm, spool, config)
    with spool.lock():
        keeper.start()
        try:
            yield keeper
        finally:
            assert keeper.process is not None
            if keeper.process.poll() is None:
                keeper.kill(signal.SIGTERM)
