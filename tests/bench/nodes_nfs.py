"""Nodes over NFS: from the reply 226 to the first line of run.sh, in a machine that waited.

All hosts are in the user-mode kernel of tests.support.nfs, which has one processor, and emulates the machines: (a) the
appliance's own runner, its spool on the file server's disk; a node with a mount of its own; and one that does not hear
of a job, but looks for it now and then. Only differences mean something. See nodes, which starts it.
"""

import sys
import time
from pathlib import Path

from construir_ftp.pack import pack
from tests import bench
from tests.bench import Row, boot
from tests.support import nfs, nfs_guest
from tests.support.appliance import WARM, Appliance, construir
from tests.support.farm import node as node_of
from tests.support.images import job_directory
from tests.support.nfs import inside

_PATIENCE_S, _SETTLE_S, _TRIES = 1800.0, 15.0, 5
_ALL_S = 6 * 3600.0
_MACHINE = '[machine]\naccelerator = "tcg"\nmemory = "256MiB"\nscratch = "256MiB"\n'
_CONFIG = (
    WARM.replace("[machine]\n", _MACHINE).replace("slots = 2", "slots = 1").replace("60s", "20min")
    + '[images]\npath = "/var/lib/construir/images"\n[nodes]\nlease = "2min"\nrenew = "2s"\nadmit = ["*"]\n'
)
# Its bell glances at the queue once in eleven days.
DEAF = """
from construir_ftp.cli.main import main
from construir_ftp.runner import bell
bell._LOCAL_S = bell._REMOTE_S = 1e6
main()
"""
_TITLE = "a job by FTP, a machine waits for it; over NFS"


@inside
def measured(front: Path, node: Path, rounds: str) -> None:
    """Take all, and print the table."""
    own = nfs_guest.EXPORTED / "own"
    own.mkdir()
    upload = Path("/root/first.img.zst")
    pack.pack(job_directory(Path("/root/job"), bench.FIRST_LINE), upload, 2**20)
    alone, far = Appliance(own, _CONFIG, _PATIENCE_S), Appliance(front, _CONFIG, _PATIENCE_S)
    seen = Appliance(node, _CONFIG)
    base = Row("(a) 226 to the first line, the appliance's own runner", lambda: first_line_s(alone, upload))
    lines = []
    with alone.running(), far.running():
        construir("node", "drain", "local", f"--spool={far.spool}", check=True, timeout_s=_PATIENCE_S)
        make_ready(alone, alone.log, upload)
        for name, title, program in (
            ("far", "226 to the first line, a node", ()),
            ("deaf", "226 to the first line, a node that only looks for work", (sys.executable, "-c", DEAF)),
        ):
            with node_of(seen, name, program=program) as there:
                make_ready(far, there.log, upload)
                aim = "(a) and 500 ms" if name == "far" else ""
                turn = [base, Row(title, lambda: first_line_s(far, upload), aim)]
                lines.append(bench.take_turns(turn, int(rounds)))
    bench.print_table(
        _TITLE, [bench.Line(base.name, [*lines[0][0].values, *lines[1][0].values])] + [two[1] for two in lines]
    )
    sys.stdout.flush()


def make_ready(appliance: Appliance, log: Path, upload: Path) -> None:
    """Have a job run, and whoever writes that log keep a machine for the next one."""
    appliance.wait(appliance.submit(upload), _PATIENCE_S)
    deadline_s = time.monotonic() + _PATIENCE_S
    while "template of " not in log.read_text():
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(1)


def first_line_s(appliance: Appliance, upload: Path) -> float:
    """As boot.first_line tells; a job for which no machine waited yet does not count."""
    for _ in range(_TRIES):
        time.sleep(_SETTLE_S)
        seconds, taken = boot.first_line(appliance, upload, _PATIENCE_S)
        if taken == "pooled":
            return seconds
    raise AssertionError(f"no machine waits: {appliance.log.read_text()[-3000:]}")


def measure(rounds: int) -> None:
    """The same, from outside of that kernel."""
    with bench.workplace() as place, nfs.hosts(place, _ALL_S) as machine:
        machine.run(measured, str(rounds))
        said = machine.log.read_text(errors="replace")
    print(f"{_TITLE}{said.rpartition(_TITLE)[2].rstrip()}")
