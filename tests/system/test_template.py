"""Clones: they are quick to have, no two are alike, and a template that is wrong costs no job."""

import errno
import hashlib
import io
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError, StoppedError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.intake import admission
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.live_check import LiveCheck
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer
from construir_ftp.machine import accelerator, guest
from construir_ftp.machine import template as template_module
from construir_ftp.machine.capacity import Spare
from construir_ftp.machine.ending import Assignment, Ending
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.template import Template, Templates
from construir_ftp.machine.vm import Machine
from construir_ftp.pack import pack
from construir_ftp.runner import worker
from construir_ftp.runner.attempt import Attempt, Published
from construir_ftp.runner.resources import Resources
from construir_ftp.runner.slot import Slot
from tests.support.appliance import WARM, Appliance
from tests.support.ftpclient import wait_until
from tests.support.images import job_directory
from tests.support.machines import SMALL, assignment
from tests.support.places import JOBS
from tests.support.prison import descendants

CLONES, CLONES_ALL = 8, 20
NAMES = ("older", "newer")
BLOCK = 2**16
STAMPS = 5
HOSTILE = ("wipesroot", "corrupts", "reboots", "powersoff")
IDENTITY = b"""#!/bin/sh
for number in 1 2 3 4 5; do date +%s.%N; done
cat /proc/sys/kernel/random/boot_id /etc/machine-id
uuidgen --random
head -c 16 /dev/urandom | od -An -tx1
hostname
"""


def run_clone(template: Template, task: Assignment, pooled: bool = False) -> Ending:
    with template.waiting() if pooled else template.clone() as machine:
        return machine.run(task)


@pytest.mark.steady(0.4)
def test_no_two_clones_are_alike_and_all_know_the_time_and_run_a_job_whatever_the_size_of_its_disk(
    template: Template, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Whether they come straight from the template, or have waited."""
    job = job_directory(tmp_path / "identity", IDENTITY)
    clones = CLONES_ALL if pytestconfig.getoption("--all") else CLONES
    seen, late_s = [], []
    for number, size, pooled in zip(range(clones), cycle(["1M", "1M", "64M", "64M"]), cycle([False, True])):
        task = assignment(tmp_path / f"clone-{number}", job, size=size)
        with ThreadPoolExecutor(1) as follower:
            arrived = follower.submit(arrivals, task.output)
            ending = run_clone(template, task, pooled)
        assert (ending.claims.exit_code, ending.claims.clean) == (0, True)
        assert ending.boot_path == ("pooled" if pooled else "warm")
        said = task.output.read_text().split("\n")[:-1]
        stamps, identity = map(float, said[:STAMPS]), said[STAMPS:]
        late_s.append(min(at - stamp for at, stamp in zip(arrived.result(), stamps, strict=True)))
        seen.append(identity)
        assert identity[-1] == f"clone-{number}"
    for values in zip(*seen, strict=True):
        assert len(set(values)) == clones, values
    # What is measured is the clock's error and the time that a line took to get here, on a host that may be busy.
    assert all(-0.05 < late < 0.5 for late in late_s), late_s
    assert statistics.median(late_s) < 0.05


def arrivals(log: Path) -> list[float]:
    """When each of the first lines came, while they come."""
    seen: list[float] = []
    deadline = time.time() + 120
    while len(seen) < STAMPS and time.time() < deadline:
        lines = log.read_bytes().count(b"\n") if log.exists() else 0
        seen += [time.time()] * (min(lines, STAMPS) - len(seen))
        time.sleep(0.002)
    return seen


def test_hostile_clones_change_nothing_for_the_next(template: Template, tmp_path: Path) -> None:
    before = digests(template)
    for job in HOSTILE:
        run_clone(template, assignment(tmp_path / job, JOBS / job))
    assert digests(template) == before
    assert run_clone(template, assignment(tmp_path / "after", JOBS / "hello")).claims.exit_code == 0


def digests(template: Template) -> list[str]:
    found = []
    for descriptor in (template._ram, template._state, template._root):
        with os.fdopen(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY), "rb", buffering=0) as file:
            found.append(digest(file))
    return found


def digest(file: io.FileIO) -> str:
    """Of what is in a file, and where, but for zeros: to read two gigabytes of holes takes seconds."""
    found, at, end = hashlib.sha256(), 0, file.seek(0, os.SEEK_END)
    while at < end:
        try:
            at = file.seek(at, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError as error:
            assert error.errno == errno.ENXIO, "only a hole is left"
            break
        file.seek(at)
        block = file.read(BLOCK)
        if block.count(0) < len(block):  # a hole in memory that was read is one no longer
            found.update(f"{at}:".encode() + block)
        at += BLOCK
    return f"{found.hexdigest()} {end}"


def test_sealed_template_can_be_written_by_nobody(template: Template) -> None:
    with pytest.raises(PermissionError):
        os.pwrite(template._ram, b"poison", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(template._state, 0)


@pytest.fixture
def resources(shape: Shape, images: Path, base: BaseImage, spool: Spool) -> Iterator[Resources]:
    """One without a slot; its machines are of the shape of the tests' template."""
    with closing(Templates(60)) as templates:
        yield Resources(
            spool=spool,
            offer=Offer.of(spool, Config()),
            spare=Spare(0),
            base=base,
            machine=SMALL,
            accelerator=accelerator.choose(SMALL, images, base),
            max_disk_bytes=shape.max_disk_bytes,
            artifact_limits=Config().artifacts,
            templates=templates,
        )


def run_job(resources: Resources, waiting: Machine | None = None) -> Published:
    incoming = resources.spool.receive()
    pack.pack(JOBS / "hello", incoming.upload, 2**20)
    with JudgePool(Config().gate) as judges, LiveCheck(judges, incoming.upload) as check:
        admission.admit(resources.spool, incoming, "hello.img.zst", "alice", check, resources.offer)
    job = resources.spool.take()
    assert job is not None
    stop, other_end = socket.socketpair()
    with stop, other_end:
        prepared = worker.prepare(resources, job, stop)
        assert isinstance(prepared, Attempt)
        outcome = worker.run(resources, prepared, stop, lambda _seconds, _error: True, waiting)
    assert isinstance(outcome, Published)
    return outcome


def put_in_place(resources: Resources, template: Template) -> None:
    assert resources.templates is not None
    resources.templates._built[resources.shape().key()] = template


def same(template: Template, stop: socket.socket | None = None, **changes: Any) -> Template:
    """Another one of the same memory and state, for a shape in which these fields are others."""
    other = Template(template.shape, stop)
    for theirs, own in ((template._ram, other._ram), (template._state, other._state)):
        os.dup2(theirs, own, inheritable=False)
    other.shape = msgspec.structs.replace(template.shape, **changes)
    return other


def never_booted(template: Template) -> Template:
    """There is neither memory nor state in it."""
    return Template(template.shape)


def thrown_away(template: Template) -> Template:
    """By another thread, since it was found."""
    other = Template(template.shape)
    other.close()
    return other


def of_another_machine(template: Template) -> Template:
    """As if its state were taken for that of a machine it does not fit."""
    return same(template, memory_bytes=template.shape.memory_bytes // 2)


@pytest.mark.parametrize("wrong", [never_booted, thrown_away, of_another_machine])
def test_job_boots_cold_when_its_template_is_wrong_which_is_logged_and_thrown_away(
    resources: Resources, template: Template, caplog: pytest.LogCaptureFixture, wrong: Callable[[Template], Template]
) -> None:
    caplog.set_level("INFO")
    put_in_place(resources, wrong(template))
    result = run_job(resources).result
    assert (result.status, result.boot_path, result.attempt) == ("success", "cold", 1)
    assert "in a machine booted for it, since the one it had failed: " in caplog.text
    assert f"template of {resources.base.name} thrown away: " in caplog.text
    assert resources.templates is not None
    assert resources.templates._built == {}


def test_job_boots_cold_when_the_machine_that_waited_for_it_has_died(
    resources: Resources, template: Template, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with template.waiting() as machine:
        machine.engine.prisoner.kill()
        result = run_job(resources, machine).result
    assert (result.status, result.boot_path, result.attempt) == ("success", "cold", 1)
    assert "in a machine booted for it, since the one it had failed: " in caplog.text


def test_template_of_which_no_machine_gets_ready_to_wait_is_thrown_away_before_a_job_has_one(
    resources: Resources, caplog: pytest.LogCaptureFixture
) -> None:
    assert resources.templates is not None
    wrong = Template(resources.shape())
    put_in_place(resources, wrong)
    with pytest.raises(ConstruirError), wrong.waiting():
        pass
    assert resources.templates.find(resources.shape()) is None
    assert "thrown away: no machine of it gets ready: " in caplog.text


def test_machine_that_has_had_a_job_takes_no_other(template: Template, tmp_path: Path) -> None:
    with template.waiting() as machine:
        assert machine.run(assignment(tmp_path / "first", JOBS / "hello")).claims.clean
        assert machine._process.returncode == 0
        machine.run(assignment(tmp_path / "second", JOBS / "hello"))
        assert (tmp_path / "second" / "output.log").read_bytes() == b""


def test_shape_has_another_key_with_everything_that_makes_another_machine(shape: Shape, tmp_path: Path) -> None:
    """Base image, sizes, accelerator, QEMU's program and its version, kernel line."""
    qemu = tmp_path / "qemu"
    qemu.write_text("one version")
    qemu.chmod(0o755)
    manifest = msgspec.structs.replace(shape.base.manifest, parts={})
    others: list[dict[str, Any]] = [
        {"base": msgspec.structs.replace(shape.base, path=tmp_path)},
        {"base": msgspec.structs.replace(shape.base, manifest=manifest)},
        {"memory_bytes": shape.memory_bytes * 2},
        {"cpus": shape.cpus + 1},
        {"max_disk_bytes": shape.max_disk_bytes * 2},
        {"read_only_disks": 1},
        {"accelerator": {"kvm": "tcg", "tcg": "kvm"}[shape.accelerator]},
        {"program": str(qemu)},
    ]
    keys = [shape.key(), *(msgspec.structs.replace(shape, **other).key() for other in others)]
    qemu.write_text("another version")
    keys.append(msgspec.structs.replace(shape, program=str(qemu)).key())
    assert len(set(keys)) == len(keys)
    assert guest.kernel_line(shape.architecture, shape.accelerator) in keys[0]


def found(templates: Templates, shape: Shape) -> Template:
    """Once it is built."""
    deadline = time.monotonic() + 120
    while (template := templates.find(shape)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return template


def is_thrown_away(template: Template) -> bool:
    try:
        with template.clone():
            return False
    except ConstruirError:
        return True


def test_template_is_built_anew_when_qemu_has_changed_and_few_are_kept(
    template: Template, shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_module, "_MOST_KEPT", 1)
    qemu = tmp_path / "qemu"
    qemu.write_text(f'#!/bin/sh\nexec {shape.program} "$@"\n')
    qemu.chmod(0o755)
    shape = msgspec.structs.replace(shape, program=str(qemu))
    with closing(Templates(60)) as templates:
        other = templates._built[template.shape.key()] = same(template)
        first = found(templates, shape)
        assert (is_thrown_away(other), found(templates, shape)) == (True, first)
        with first.clone() as machine:
            qemu.write_text(qemu.read_text() + "# of another version\n")
            second = found(templates, shape)
            # A clone outlives the template that it was made of.
            assert machine.run(assignment(tmp_path / "job", JOBS / "hello")).claims.exit_code == 0
        assert (is_thrown_away(first), is_thrown_away(second)) == (True, False)


def test_stop_ends_a_template_that_is_being_built_at_once(shape: Shape, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\nexec sleep 3600\n")
    qemu.chmod(0o755)
    with closing(Templates(600)) as templates:
        assert templates.find(msgspec.structs.replace(shape, program=str(qemu))) is None
        wait_until(lambda: qemus(os.getpid(), "sleep"), "it boots")
        templates.stop()
        wait_until(lambda: not templates._is_building(), "it is given up")
        assert templates.find(shape) is None
        assert not templates._is_building()


def test_stop_ends_a_machine_that_gets_ready_to_wait_and_no_clone_of_a_job(template: Template, tmp_path: Path) -> None:
    stop, tell = socket.socketpair()
    with stop, tell, closing(same(template, stop)) as stopped:
        tell.send(b"!")
        with pytest.raises(StoppedError), stopped.waiting():
            pass
        with stopped.clone() as machine:
            assert machine.run(assignment(tmp_path / "job", JOBS / "hello")).claims.exit_code == 0


def qemus(pid: int, name: str = "qemu") -> list[int]:
    """The machines among what a process has started."""
    found = []
    for one in descendants(pid):
        with suppress(FileNotFoundError):
            found += [one] if name in Path(f"/proc/{one}/comm").read_text() else []
    return found


def test_appliance_that_is_stopped_waits_for_no_template(tmp_path: Path, base: BaseImage) -> None:
    appliance = Appliance(tmp_path, WARM.replace('grace = "500ms"', 'grace = "10min"'))
    with appliance.running():
        wait_until(lambda: qemus(appliance.parts()["runner"]), "a template boots")
        assert appliance.stop() == 0
    assert "template of" not in appliance.log.read_text()


# One of three slots keeps no machine.
TWO_WAIT = WARM.replace("slots = 2", "slots = 3\nwaiting = 2")
LEAVES_MARKS = b"""#!/bin/sh
ls /root/mark /dev/shm/mark 2>/dev/null
touch /root/mark /dev/shm/mark
cat /proc/sys/kernel/random/boot_id
"""


@pytest.fixture(scope="module")
def warm_appliance(base: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One that has built its first template."""
    with Appliance(tmp_path_factory.mktemp("appliance"), TWO_WAIT).running() as appliance:
        appliance.wait_until_logged(f"template of {base.name} built")
        yield appliance


def waiting_machines(appliance: Appliance) -> set[int]:
    """The clones that its runner has, once there are two of them and they have come to rest."""
    deadline = time.monotonic() + 120
    while True:
        pids = set(map(int, clones_of(appliance.parts()["runner"])))
        looks = []
        for _ in range(4):  # in one pause a host that stands still does no work either
            looks.append({pid: processor_ticks(pid) for pid in pids})
            time.sleep(0.2)
        if len(pids) == 2 and all(look == looks[0] for look in looks):
            return pids
        assert time.monotonic() < deadline, pids


def clones_of(runner: int) -> Iterator[int]:
    for pid in descendants(runner):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].startswith(b"qemu") and b"-incoming" in words:
                yield pid


def processor_ticks(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def test_as_many_machines_wait_as_configured_and_each_has_one_job(warm_appliance: Appliance, tmp_path: Path) -> None:
    pack.pack(job_directory(tmp_path / "marks", LEAVES_MARKS), tmp_path / "marks.img.zst", 2**20)
    said: list[bytes] = []
    ready = waiting_machines(warm_appliance)
    for _ in range(2):  # the second while another machine is got ready in the first one's slot
        job = warm_appliance.submit(tmp_path / "marks.img.zst")
        assert warm_appliance.wait(job)["boot_path"] == "pooled"
        said.append(warm_appliance.fetch(job, "output.log"))
    assert not ready & waiting_machines(warm_appliance)
    assert [len(words.split()) for words in said] == [1, 1]
    assert said[0] != said[1]


def named(template: Template, name: str, place: Path) -> Template:
    """The same, but its machines have a name, which makes their QEMU another one."""
    qemu = place / name
    qemu.write_text(f'#!/bin/sh\nexec {template.shape.program} -name {name} "$@"\n')
    qemu.chmod(0o755)
    return same(template, program=str(qemu))


def test_machine_that_waits_makes_room_for_one_of_a_newer_template(template: Template, tmp_path: Path) -> None:
    """Which is that of another base image, as a rule; here its QEMU is another."""
    older, newer = (named(template, name, tmp_path) for name in NAMES)
    with closing(older), closing(newer):
        current = older
        slot = Slot()
        slot.start(lambda *_: None, lambda: None, lambda: current)
        try:
            wait_until(lambda: named_clones() == ["older"], "a machine waits")
            current = newer
            slot.look_again()
            wait_until(lambda: named_clones() == ["newer"], "a newer one waits, and no other")
        finally:
            slot.end()
            slot.join(60)
            slot.close()
    assert named_clones() == []


def named_clones() -> list[str]:
    """The names of those that this process has."""
    found = []
    for pid in clones_of(os.getpid()):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found += [name for name in NAMES if name.encode() in words]
    return found


def test_larger_machines_and_what_jobs_depend_on_come_the_same_way(warm_appliance: Appliance, tmp_path: Path) -> None:
    """From templates of their own, built when they are first asked for; no machine of these waits."""
    job = job_directory(tmp_path / "job", b"#!/bin/sh\nls /deps; head -1 /proc/meminfo\n")
    pack.pack(job, tmp_path / "first.img.zst", 2**20)
    first = warm_appliance.submit(tmp_path / "first.img.zst")
    assert warm_appliance.wait(first)["status"] == "success"
    (job / "construir.toml").write_text(f'memory = "1500MiB"\n[dependencies]\nresults = ["{first}"]\n')
    pack.pack(job, tmp_path / "larger.img.zst", 2**20)
    for way in ("cold", "warm"):
        larger = warm_appliance.submit(tmp_path / "larger.img.zst")
        result = warm_appliance.wait(larger)
        assert (result["status"], result["boot_path"]) == ("success", way)
        assert result["memory_bytes"] == 1500 * 2**20
        warm_appliance.wait_until_logged(" built in ", times=2)
    dependency, _, kib, _ = warm_appliance.fetch(larger, "output.log").decode().split()
    assert dependency == "first"
    assert 1_300_000 < int(kib) < 1_500 * 1024
