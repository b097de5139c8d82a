"""Control groups bound what is in a jail together, and nothing of them stays. The kernel's own, or none."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.errors import ConstruirError
from construir_ftp.jail import cell, cgroup, jail, tools
from construir_ftp.jail.cell import Cell, Limits
from construir_ftp.jail.cgroup import Group, Place
from tests.support.places import PROJECT
from tests.support.prison import MIB, nothing_left, running, wait_for_end


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def place() -> Place:
    try:
        return cgroup.find()
    except ConstruirError as error:
        pytest.skip(str(error))


@pytest.fixture
def group(place: Place) -> Iterator[Group]:
    made = Group(place)
    yield made
    made.remove()


def need(place: Place, controller: str) -> None:
    if controller not in place.controllers:
        pytest.skip(f"no {controller} controller to be had here")


def enter(group: Group, *argv: str) -> "subprocess.Popen[bytes]":
    """Start a program in a group."""
    script = 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"'
    words = ["sh", "-c", script, "sh", *map(str, group.entrances()), "--", *argv]
    return subprocess.Popen(words, env=process.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def end(child: "subprocess.Popen[bytes]") -> int:
    child.communicate(timeout=60)
    return child.returncode


# -- limits ----------------------------------------------------------------------------------------------------


def test_memory_of_all_together_ends_at_the_limit(place: Place, group: Group) -> None:
    need(place, "memory")
    group.limit(32 * MIB, None, None)
    assert group.in_force("memory")
    assert end(enter(group, sys.executable, "-c", "bytearray(128 * 2**20)")) == -signal.SIGKILL
    assert group.out_of_memory()


def test_peak_memory_is_told(place: Place, group: Group) -> None:
    need(place, "memory")
    assert end(enter(group, sys.executable, "-c", "bytearray(64 * 2**20)")) == 0
    peak_bytes = group.peak_memory_bytes()
    if peak_bytes is None:
        pytest.skip("this kernel does not tell the peak (memory.peak: since 5.19)")
    assert 64 * MIB < peak_bytes < 256 * MIB
    assert not group.out_of_memory()


def test_processes_of_all_together_end_at_the_limit(place: Place, group: Group) -> None:
    need(place, "pids")
    group.limit(None, 5, None)
    code = """
import os, signal
for born in range(20):
    try:
        if not os.fork():
            signal.pause()
    except BlockingIOError:
        break
print(born)
"""
    child = enter(group, sys.executable, "-c", code)
    assert child.stdout is not None
    assert int(child.stdout.readline()) == 4
    assert child.wait(60) == 0
    assert len(group.members()) == 4
    group.remove()
    end(child)


def test_cpu_time_of_all_together_is_shared_out(place: Place, group: Group) -> None:
    need(place, "cpu")
    group.limit(None, None, 1.5)
    assert group.in_force("cpu")


def test_without_limits_none_is_said_to_be_in_force(group: Group) -> None:
    assert not any(group.in_force(controller) for controller in cgroup.CONTROLLERS)


def test_what_yields_to_others_weighs_least(place: Place, group: Group) -> None:
    need(place, "cpu")
    group.yield_to_others()
    directory = place.controllers["cpu"] / group.entrances()[-1].parent.name
    names = {1: "cpu.shares", 2: "cpu.weight"}
    assert int((directory / names[place.version]).read_text()) == {1: 2, 2: 1}[place.version]


def test_files_in_a_jails_scratch_space_count_as_its_memory(place: Place) -> None:
    need(place, "memory")
    kind = Cell(scratch_bytes=256 * MIB, limits=Limits(memory_bytes=32 * MIB))
    script = "dd if=/dev/urandom of=/var/tmp/big bs=1M count=128"
    with jail.host().hold(kind, ["sh", "-c", f"{script}; echo survived"], stdout=subprocess.PIPE) as prisoner:
        said, _ = prisoner.process.communicate(timeout=60)
        assert prisoner.group is not None
        assert prisoner.group.out_of_memory()
    assert said in (b"", b"survived\n")  # whom the kernel chose


def test_what_is_in_a_jail_is_in_its_group(place: Place) -> None:
    kind = Cell(limits=Limits(memory_bytes=64 * MIB, processes=20, cpus=1))
    with jail.host().hold(kind, ["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE) as prisoner:
        inside = running(prisoner)
        assert prisoner.group is not None
        assert {inside, prisoner.process.pid} < set(prisoner.group.members())
        assert all(prisoner.group.in_force(controller) for controller in place.controllers)


# -- their end -------------------------------------------------------------------------------------------------


def test_removing_a_group_ends_all_that_is_in_it(place: Place) -> None:
    group = Group(place)
    child = enter(group, "sh", "-c", "trap '' TERM HUP; sleep 1000 & sleep 1000 & echo; wait")
    assert child.stdout is not None
    child.stdout.readline()
    assert len(group.members()) == 3
    group.remove()
    assert end(child) == -signal.SIGKILL
    assert not any(entrance.exists() for entrance in group.entrances())
    group.remove()  # no harm in it


_OWNER = """
import os, signal
from construir_ftp.jail import cgroup
group = cgroup.Group(cgroup.find())
child = os.fork()
if not child:
    for entrance in group.entrances():
        entrance.write_text("0")
    print(os.getpid(), *group.entrances(), sep="\\n", flush=True)
    signal.pause()
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_groups_of_owners_that_are_gone_are_swept_up_and_no_others(place: Place, group: Group) -> None:
    mine = enter(group, "sh", "-c", "echo; read -r _")
    assert mine.stdout is not None
    mine.stdout.readline()
    argv = [sys.executable, "-c", _OWNER]
    with subprocess.Popen(argv, env=process.environment(PYTHONPATH=str(PROJECT)), stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        left = int(owner.stdout.readline())
        entrances = [Path(owner.stdout.readline().decode().strip()) for _ in place.parents]
        assert not {entrance.parent for entrance in entrances} & set(cgroup.sweep())
        owner.kill()
        owner.wait()
        cgroup.sweep()  # an appliance of a test beside this one may have been first
        assert not [entrance for entrance in entrances if entrance.parent.exists()]
        wait_for_end(left)
    assert end(mine) == 1  # nothing to read any more


# -- version 2 -------------------------------------------------------------------------------------------------

_DELEGATED = """
import os, sys
from pathlib import Path
from construir_ftp.jail import cgroup
own = Path(sys.argv[1])
(own / "cgroup.procs").write_text("0")
place = cgroup.delegated(own)
again = cgroup.delegated(own / "construir-owner")
group = cgroup.Group(place)
print(place.version, place == again, cgroup._members(own), len(cgroup._members(own / "construir-owner")))
group.limit(64 * 2**20, 10, 1)
print([group.in_force(name) == (name in place.controllers) for name in cgroup.CONTROLLERS])
pid = os.fork()
if not pid:
    group.entrances()[0].write_text("0")
    import signal
    signal.pause()
while not group.members():
    pass
group.remove()
print(os.waitpid(pid, 0)[1], group.entrances()[0].exists())
"""


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A version 2 group that is ours, as systemd would have made it."""
    tops = [mount.point for mount in cgroup._mounts() if mount.version == 2]
    if not tops or not os.access(tops[0], os.W_OK):
        pytest.skip("no version 2 hierarchy that may be written to")
    group = tops[0] / f"construir-test-{os.getpid()}"
    group.mkdir()
    os.setxattr(group, "user.delegate", b"1")
    yield group
    for below in (group / "construir-owner", group):
        if below.exists():
            cgroup._remove(below)


def test_groups_of_others_that_come_and_go_during_a_sweep_are_passed_by(place: Place) -> None:
    parent, is_over = place.parents[0], threading.Event()

    def come_and_go() -> None:
        others = [parent / f"passing-{number}" for number in range(50)]
        while not is_over.is_set():
            for other in others:
                other.mkdir()
            for other in others:
                other.rmdir()

    others = threading.Thread(target=come_and_go)
    others.start()
    try:
        # Those of a test beside this one, whose owner was killed, may be found as well.
        swept = [path for _ in range(100) for path in cgroup.sweep()]
        assert not [path for path in swept if path.name.startswith("passing-")]
    finally:
        is_over.set()
        others.join()


def test_a_delegated_group_is_divided(delegated: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DELEGATED, delegated],
        env=process.environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["2 True [] 1", "[True, True, True]", f"{signal.SIGKILL:d} False"], done.stderr


def test_a_group_that_was_not_delegated_is_left_alone(delegated: Path) -> None:
    os.removexattr(delegated, "user.delegate")
    with pytest.raises(ConstruirError, match="Delegate=yes"):
        cgroup.delegated(delegated)
    assert not (delegated / "construir-owner").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may divide what it likes")
def test_where_no_group_is_to_be_had_the_jail_says_so_and_works_without() -> None:
    means = jail.host().means
    if means.groups:
        pytest.skip("this user has groups")
    assert "Delegate=yes" in means.no_groups
    assert tools.run(cell.reader(memory_bytes=MIB * 512, cpu_s=10), ["true"], 30).status == 0
