"""A real Slurm for tests: munged, slurmctld and two slurmd, in mount, pid, network and uts namespaces of their own.

They are Debian's programs, which deploy/prepare has unpacked, or those of another release in a tree of its own, with
the settings of deploy/slurm as far as one computer without systemd allows. All of it ends with the namespaces.
"""

import fcntl
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.support import computer
from tests.support.places import PROJECT

SETTINGS = PROJECT / "deploy" / "slurm"
_PROGRAMS = PROJECT / ".venv" / "programs" / "usr"
# What a tree with the Slurm of another release is made of.
_PACKAGES = "munge,slurm-client,slurmctld,slurmd"
# From this one on slurmd can do without control groups.
_NEEDS_NO_CGROUPS = (23, 11)
_BUILD_S = 1800
_COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "munge", "unmunge")
_DAEMONS = {"slurmctld": "slurmctld-wlm", "slurmd": "slurmd-wlm", "slurmstepd": "slurmstepd-wlm", "munged": "munged"}
NODES = ("n1", "n2")
_UP_S = 120
_LOOK_S = 0.1

# What holds the namespaces, as their first process, and waits for whatever is left to it. Whoever looks for commands
# looks in /usr/local/sbin first.
_INIT = r"""
set -eu
hostname localhost
ip link set lo up
# Without another one slurmctld asks for no IPv4 address (getaddrinfo(3), AI_ADDRCONFIG).
ip addr add 127.0.0.2/8 dev lo
if [ -n "$2" ]; then
    for shown in /proc /sys /dev; do mount --rbind "$shown" "$2$shown"; done
    mkdir -p "$2${1%/*}"
    mount --bind "${1%/*}" "$2${1%/*}"
fi
mount --bind "$1/bin" /usr/local/sbin
echo ready
trap : TERM
while :; do sleep 1000 & wait || :; done
"""


def settings(place: Path) -> str:
    """slurm.conf of deploy/slurm, for two nodes of two processors on this computer; what it writes is in `place`."""
    changes = {
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmUser": "root",
        "StateSaveLocation": place / "state",
        "SlurmdSpoolDir": place / "%n",
        "SlurmctldPidFile": place / "slurmctld.pid",
        "SlurmdPidFile": place / "%n.pid",
        "SlurmctldLogFile": place / "slurmctld.log",
        "SlurmdLogFile": place / "%n.log",
        "AuthInfo": f"socket={place}/munge.socket,cred_expire=10",
        # The control groups of this host are not ours.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SlurmdTimeout": "15",
        "KillWait": "30",
        "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=0,sched_interval=2,defer",
    }
    lines = []
    for line in (SETTINGS / "slurm.conf").read_text().splitlines():
        key = line.partition("=")[0]
        if key == "NodeName":
            continue
        changed = f"{key}={changes.pop(key)}" if key in changes else line
        lines.append(re.sub(r"Nodes=\S+", f"Nodes={','.join(NODES)}", changed))
    lines += [f"{key}={value}" for key, value in changes.items()]
    for number, name in enumerate(NODES, 1):
        port = 17000 + number
        lines.append(f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000")
    return "\n".join(lines) + "\n"


class Slurm:
    """One that runs. `init` is the first process of its namespaces, by the pid that this computer has for it."""

    def __init__(self, place: Path, unshare: "subprocess.Popen[str]") -> None:
        self.place = place
        self.init = int(Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text())
        self._within = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--net", "--uts", "--"]

    def words(self, *argv: str | Path) -> list[str]:
        """A command that runs this one in the namespaces."""
        return [*self._within, "env", f"SLURM_CONF={self.place}/slurm.conf", *map(str, argv)]

    def run(self, *argv: str | Path) -> str:
        """What a command says, which ends well, in the namespaces."""
        words = self.words(*argv)
        done = subprocess.run(words, capture_output=True, text=True, timeout=_UP_S)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def start(self, name: str) -> None:
        """Start slurmctld, or the slurmd of a node."""
        self.run(*(["slurmctld"] if name == "slurmctld" else ["slurmd", "-N", name]))

    def pid(self, name: str) -> int:
        """The pid that this computer knows slurmctld, or the slurmd of a node, by."""
        inner = (self.place / f"{name}.pid").read_text().strip()
        return self.outer_pid(int(inner))

    def outer_pid(self, inner: int) -> int:
        """The pid that this computer has for one of the namespaces."""
        namespace = Path(f"/proc/{self.init}/ns/pid").stat().st_ino
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                is_theirs = (status.parent / "ns/pid").stat().st_ino == namespace
                pids = re.search(r"^NSpid:\s+(.*)$", status.read_text(), re.MULTILINE)
            except OSError:  # it has ended
                continue
            if is_theirs and pids and int(pids[1].split()[-1]) == inner:
                return int(status.parent.name)
        raise AssertionError(f"no process {inner} there")

    def kill(self, name: str) -> None:
        """Kill slurmctld, or the slurmd of a node, by SIGKILL."""
        os.kill(self.pid(name), signal.SIGKILL)

    def wait_until_up(self) -> None:
        """Until both nodes take jobs."""
        deadline_s = time.monotonic() + _UP_S
        while self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T").split() != ["idle"] * 2:
            assert time.monotonic() < deadline_s, self.logs()
            time.sleep(_LOOK_S)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.place.glob("*.log")))

    def jobs(self) -> list[dict[str, Any]]:
        """All that it knows of jobs, the last few minutes' ones among them."""
        told: list[dict[str, Any]] = msgspec.json.decode(self.run("squeue", "--json", "--states=all"))["jobs"]
        return told

    def living(self) -> list[dict[str, Any]]:
        """Those of them that have not ended."""
        return [job for job in self.jobs() if {"PENDING", "RUNNING", "COMPLETING"} & set(_words(job["job_state"]))]


def _words(state: str | list[str]) -> list[str]:
    return [state] if isinstance(state, str) else state


@contextmanager
def running(
    place: Path, root: Path | None = None, more: str = "", prepare: Callable[[Slurm], None] = lambda _: None
) -> Iterator[Slurm]:
    """One with its files in `place`, which is made; it ends with the context. Its programs are those in a tree, `root`,
    which then finds what is beside `place` where it is. There are `more` settings, for which something is prepared.
    """
    _lay_out(place, root)
    with (place / "slurm.conf").open("a") as conf:
        conf.write(more)
    argv = ["unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child", "--mount-proc", "bash", "-c"]
    words = [*argv, _INIT, "init", str(place), str(root or "")]
    unshare = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert unshare.stdout is not None
        assert unshare.stdout.readline() == "ready\n"
        slurm = Slurm(place, unshare)
        slurm.run("munged", *_munge_args(place))
        prepare(slurm)
        for name in ("slurmctld", *NODES):
            slurm.start(name)
        slurm.wait_until_up()
        yield slurm
    finally:
        unshare.kill()  # and with it, by --kill-child, all that is in its namespaces
        unshare.communicate()


def _lay_out(place: Path, root: Path | None) -> None:
    for directory in (place, place / "bin", place / "state", place / "programs"):
        directory.mkdir(mode=0o755)
    files = {name: f"bin/{name}" for name in _COMMANDS} | {name: f"sbin/{file}" for name, file in _DAEMONS.items()}
    for name, file in files.items():
        # The daemons look at what they are called; where they are installed they have a link, too.
        (place / "programs" / name).symlink_to(_PROGRAMS / file)
        start = f"chroot {root} {name}" if root else f"{place}/programs/{name}"
        # A slurmd that comes from elsewhere looks for its helper where that is installed.
        more = f" -d {place}/programs/slurmstepd" if name == "slurmd" and not root else ""
        (place / "bin" / name).write_text(f'#!/bin/sh\nexec {start} "$@"{more}\n')
        (place / "bin" / name).chmod(0o755)
    (place / "slurm.conf").write_text(settings(place))
    # With the settings above nothing is done with control groups; 22.05 wants some named all the same.
    plugin = "disabled" if _version(place) >= _NEEDS_NO_CGROUPS else "cgroup/v1"
    (place / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
    key = place / "munge.key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(1024))


def _version(place: Path) -> tuple[int, int]:
    told = subprocess.run([place / "bin" / "slurmctld", "-V"], check=True, capture_output=True, text=True).stdout
    major, minor, *_ = told.split()[1].split(".")
    return int(major), int(minor)


def tree(suite: str) -> Path:
    """A release of Debian with Slurm in it, as files, made now if it is not there; for root alone."""
    place = computer.cache() / f"slurm-{suite}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            draft = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
            argv = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=directory", f"--include={_PACKAGES}"]
            options = ['--aptopt=APT::Install-Recommends "false"']
            subprocess.run([*argv, *options, suite, draft / "tree"], check=True, timeout=_BUILD_S)
            # Without a network localhost is known by this alone.
            (draft / "tree/etc/hosts").write_text("127.0.0.1 localhost\n")
            draft.rename(place)
    return place / "tree"


def _munge_args(place: Path) -> list[str]:
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    # The directory of a test is its user's alone, which munged refuses unless it is forced to.
    return ["--force", *(f"--{option}={place}/munge.{suffix}" for option, suffix in files.items())]
