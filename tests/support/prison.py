"""Programs in jails, for all tests of jails. Plain functions."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from construir_ftp.jail import cell, jail, orphans
from construir_ftp.jail.bubblewrap import Means
from construir_ftp.jail.cell import Cell, Limits
from construir_ftp.jail.jail import Jail
from construir_ftp.jail.prisoner import Prisoner
from tests.support.belongings import Belongings, nothing_since

MIB = 2**20
LOOKING = Cell(proc=True, scratch_bytes=MIB)
NO_LIMITS = Limits()


@contextmanager
def nothing_left() -> Iterator[None]:
    """Whatever a test does: no child, no descriptor, no cgroup of ours stays."""
    groups = jail.host().means.groups
    before = Belongings.now()
    yield
    nothing_since(before, "of a jail")
    assert descendants(os.getpid()) == [os.getpid()]
    for parent in groups.parents if groups else ():
        assert list(parent.glob(f"construir.{orphans.owner()}.*")) == []


def run(prison: Jail, kind: Cell, argv: Sequence[str | Path]) -> tuple[int, str]:
    """How a program in a jail ended, and all it said."""
    with prison.hold(kind, argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as prisoner:
        output, _ = prisoner.process.communicate(timeout=60)
        return prisoner.status(prisoner.process.returncode), output.decode()


def shell(script: str, kind: Cell = LOOKING) -> str:
    status, said = run(jail.host(), kind, ["sh", "-c", script])
    assert status == 0, said
    return said


def python(code: str, limits: Limits = NO_LIMITS, *arguments: str) -> str:
    """What a program in Python says, in a jail with nothing but Python."""
    kind = Cell(readable=cell.python(), limits=limits)
    status, said = run(jail.host(), kind, [sys.executable, "-I", "-c", code, *arguments])
    assert status == 0, said
    return said


def wait_for_end(pid: int) -> None:
    """Until a process that is no child of ours has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([pidfd], [], [], 60)
    os.close(pidfd)
    assert ended, f"process {pid} lives on"


def running(prisoner: Prisoner) -> int:
    """The program's number, once it has said something."""
    assert prisoner.process.stdout is not None
    assert prisoner.process.stdout.readline()
    pid = prisoner.inside()
    assert pid is not None
    return pid


def bare() -> Jail:
    own = jail.UIDS if os.geteuid() == 0 else None
    return Jail(Means(walls="none", uids=own, reason="bwrap: not installed"))


def descendants(pid: int) -> list[int]:
    """A process and all it has started, themselves or by others."""
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                children += map(int, (task / "children").read_text().split())
    return [pid, *(found for child in children for found in descendants(child))]


def judge_pids() -> list[int]:
    """The judges at work for this process, by pid."""
    return named("construir-judge")


def judge_server_pids() -> list[int]:
    """Those who start them. A judge who was only just forked is called as its server is, and is none."""
    found = named("judge-server")
    return [pid for pid in found if parent(pid) not in (0, *found)]


def parent(pid: int) -> int:
    """The process that a process was started by; 0 if it is gone. Its name may hold anything (proc(5))."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def named(name: str) -> list[int]:
    """Descendants of this process that are called so."""
    found = []
    for pid in descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.append(pid)
    return found


def only_qemu() -> int:
    """The one machine of this process, by pid."""
    found = [pid for pid in descendants(os.getpid()) if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")]
    assert len(found) == 1
    return found[0]


def check_walls(pid: int) -> None:
    """Of a machine: who it is, what it may do, what it sees."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid = int(status["Uid"].split()[0])
    assert uid in jail.UIDS if os.geteuid() == 0 else uid == os.geteuid()
    assert (status["CapEff"], status["NoNewPrivs"], status["Seccomp"]) == ("0" * 16, "1", "2")
    assert int(status["Seccomp_filters"]) == 2  # ours and QEMU's own
    assert not Path(f"/proc/{pid}/root/home").exists()
    for kind in ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup"):
        assert Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
