"""Jobs in user-mode machines, where they are different from others, and what happens when such a machine fails."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage, uml
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.machine import accelerator, outcome
from construir_ftp.machine.outcome import MachineFault
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.vm import Machine
from tests.support import machines, umlimage
from tests.support.appliance import CONFIG, Appliance, construir
from tests.support.images import job_directory, run
from tests.support.prison import descendants
from tests.system.test_appliance import without_bubblewrap

FIRST = "20260101T000000Z-0001-first"
PANICS = b"#!/bin/sh\necho panicking\necho c >/proc/sysrq-trigger\nsleep 1000\n"
HANGS = b"#!/bin/sh\necho running\nsleep 1000\n"
FILLS = b"""#!/bin/sh
head -c 2G /dev/zero >/big
mount -t tmpfs -o size=100% t /mnt
exec head -c 1G /dev/zero >/mnt/a
"""
NEEDS = f"""
[env]
WORD = "a b"
[dependencies]
results = ["{FIRST}"]
layers = ["tool"]
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, uml_base: BaseImage) -> str:
    """--config of commands that use user-mode machines."""
    assert uml_base.manifest.uml
    path = tmp_path_factory.mktemp("settings") / "construir.toml"
    path.write_text(machines.config("uml", CONFIG))
    return f"--config={path}"


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory, uml_base: BaseImage) -> Iterator[Appliance]:
    assert uml_base.manifest.uml
    with Appliance(tmp_path_factory.mktemp("working"), machines.config("uml", CONFIG)).running() as appliance:
        yield appliance


def image(place: Path, name: str, script: bytes, toml: str = "") -> Path:
    tree = job_directory(place / name, script)
    (tree / "construir.toml").write_text(toml)
    file = place / f"{name}.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, file, "8M")
    return file


def programs(appliance: Appliance) -> list[int]:
    """The kernels of its machines, and the processes of their guests."""
    found = []
    for pid in descendants(appliance.parts()["runner"]):
        with suppress(FileNotFoundError, ProcessLookupError):
            if re.search(r"/linux\.uml$|uml-userspace", str(Path(f"/proc/{pid}/exe").readlink())):
                found.append(pid)
    return found


# -- what there is beside the job ----------------------------------------------------------------------------


def test_layers_results_and_variables_are_there_and_a_visitor_finds_the_same(settings: str, tmp_path: Path) -> None:
    spool = Spool.prepare(tmp_path / "spool")
    options = (f"--spool={spool.path}", settings)
    first = job_directory(
        tmp_path / "first", b"#!/bin/sh\nmkdir -p out/usr/share\necho 1.0 >out/usr/share/tool\necho z >made\n"
    )
    construir("run", first, "-o", spool.state("done") / FIRST, *options, check=True)
    construir("layer", "publish", FIRST, "tool", "--path=out", *options, check=True)
    second = job_directory(
        tmp_path / "second",
        b'#!/bin/sh\necho "$WORD"; cat /usr/share/tool /deps/first/made; touch /deps/first/x; exit 3\n',
    )
    (second / "construir.toml").write_text(NEEDS)
    ran = construir("run", second, "-o", tmp_path / "result", *options)
    output = (tmp_path / "result" / "output.log").read_text().splitlines()
    assert ran.returncode == 3, ran.stderr
    assert output[:3] == ["a b", "1.0", "z"]
    assert "Read-only file system" in output[3]
    script = b"root\nvagrant\ncat /usr/share/tool; uname -r; sh run.sh\npoweroff\n"
    said = construir("shell", tmp_path / "result", *options, input=script.decode())
    assert said.returncode == 0, said.stderr
    lines = [line.strip() for line in said.stdout.splitlines()]
    assert {"1.0", "a b", "z"} <= set(lines)


def test_visitor_of_a_base_image_finds_a_machine_without_a_job(settings: str) -> None:
    script = "root\nvagrant\nls /sys/block; uname -r; mountpoint /job\npoweroff\n"
    said = construir("image", "shell", umlimage.NAME, settings, input=script)
    assert said.returncode == 0, said.stderr
    lines = [line.strip() for line in said.stdout.splitlines()]
    assert any(line.startswith("ubda") and "ubdb" not in line for line in lines), said.stdout
    assert any("/job is not a mountpoint" in line for line in lines), said.stdout


def test_job_that_asks_for_two_processors_is_refused(settings: str, tmp_path: Path) -> None:
    job = job_directory(tmp_path / "job", b"#!/bin/sh\n")
    (job / "construir.toml").write_text("cpus = 2\n")
    refused = construir("run", job, f"--spool={tmp_path / 'spool'}", settings)
    assert refused.returncode == 65
    assert "construir.toml: cpus: at most 1 can be had here" in refused.stderr


def test_base_image_without_such_a_kernel_is_an_error_that_says_what_to_do(tmp_path: Path, base: BaseImage) -> None:
    wrong = tmp_path / "construir.toml"
    wrong.write_text('[machine]\naccelerator = "uml"\n')
    refused = construir("run", job_directory(tmp_path / "job", b"#!/bin/sh\n"), f"--config={wrong}")
    assert refused.returncode != 0
    assert f"construir image build --uml {base.name}" in refused.stderr


def test_an_image_whose_user_mode_part_is_of_another_version_is_named_at_once(
    settings: str, uml_base: BaseImage, tmp_path: Path
) -> None:
    place = tmp_path / "images" / uml_base.name
    place.mkdir(parents=True)
    for path in uml_base.path.iterdir():
        (place / path.name).symlink_to(path)
    other = msgspec.structs.replace(uml_base.manifest, ingredients={**uml_base.manifest.ingredients, "uml/Uml.pm": ""})
    (place / baseimage.MANIFEST).unlink()
    (place / baseimage.MANIFEST).write_bytes(msgspec.json.encode(other))
    job, images = job_directory(tmp_path / "job", b"#!/bin/sh\n"), f"--images={tmp_path / 'images'}"
    default = tmp_path / "construir.toml"
    default.write_text(f'[machine]\naccelerator = "uml"\n[images]\ndefault = "{uml_base.name}"\n')
    for command in (("run", job), ("image", "shell", uml_base.name), ("check",)):
        said = construir(*command, f"--config={default}", f"--spool={tmp_path / 'spool'}", images, input="")
        assert said.returncode != 0
        told = " ".join((said.stdout + said.stderr).split())
        assert f"'{uml_base.name}' is of another version of this program" in told, command
        assert f"construir image build --uml {uml_base.name}" in told, command


def test_without_a_complete_jail_there_is_no_such_machine(settings: str, tmp_path: Path) -> None:
    """Although nothing says that one is required."""
    job = job_directory(tmp_path / "job", b"#!/bin/sh\n")
    refused = without_bubblewrap(
        "run", str(job), "-o", str(tmp_path / "result"), f"--spool={tmp_path / 'spool'}", settings
    )
    assert refused.returncode == 1
    assert "machine.accelerator is uml, but the jail is not complete: " in refused.stderr
    assert not (tmp_path / "result").exists()


def test_kernel_that_does_not_work_here_is_found_out_by_a_trial(uml_base: BaseImage, tmp_path: Path) -> None:
    """As one that is older than the processor: it ends as soon as it begins."""
    place = tmp_path / "images" / uml_base.name
    shutil.copytree(uml_base.uml, place / baseimage.UML)
    for name in (*baseimage.PARTS, baseimage.MANIFEST):
        (place / name).symlink_to(uml_base.path / name)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    shutil.copyfile(place / baseimage.UML / "usr/bin/prlimit", place / baseimage.UML / uml.KERNEL)
    wanted = msgspec.structs.replace(machines.SMALL, accelerator="uml")
    base = baseimage.find(tmp_path / "images", uml_base.name)
    with pytest.raises(ConstruirError, match=r"^machine.accelerator is uml, but a machine did not come up"):
        accelerator.choose(wanted, tmp_path / "images", base)
    # A job that would come all the same: the machine is to blame.
    with Machine.start(Shape.of(wanted, base, "uml", max_disk_bytes=2**30)) as machine:
        ending = machine.run(machines.assignment(tmp_path / "run", job_directory(tmp_path / "job", HANGS)))
    assert isinstance(outcome.judge(ending), MachineFault), ending
    kernel = place / baseimage.UML / uml.KERNEL
    kernel.unlink()
    kernel.symlink_to(uml_base.uml / uml.KERNEL)
    with pytest.raises(ConstruirError):
        accelerator.choose(wanted, tmp_path / "images", base)  # it is not to be seen in there
    kernel.unlink()
    shutil.copy(uml_base.uml / uml.KERNEL, kernel)
    assert accelerator.choose(wanted, tmp_path / "images", base).accelerator == "uml"
    assert len(list((tmp_path / "images").glob(".uml-*"))) == 1


def test_check_says_that_the_jail_is_the_only_wall(settings: str, tmp_path: Path) -> None:
    said = construir("check", f"--spool={tmp_path / 'spool'}", settings).stdout
    assert "user-mode Linux, as configured: the jail is the only wall between a job and this host" in said


# -- machines that wait --------------------------------------------------------------------------------------

# One of two slots keeps a machine.
ONE_WAITS = CONFIG.replace("warm = false\n", "").replace("slots = 2", "slots = 2\nwaiting = 1")
MOST_WAITING_BYTES = 128 * 2**20
LOOK_S = 3.0
MARKS = b"""#!/bin/sh
ls /root/mark /dev/shm/mark 2>/dev/null
touch /root/mark /dev/shm/mark
cat /proc/sys/kernel/random/boot_id
echo made >made
"""


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory, uml_base: BaseImage) -> Iterator[Appliance]:
    assert uml_base.manifest.uml
    with Appliance(tmp_path_factory.mktemp("keeping"), machines.config("uml", ONE_WAITS)).running() as appliance:
        yield appliance


def waiting(appliance: Appliance, *earlier: int) -> int:
    """The kernel of the machine that waits, once there is one that is none of the earlier ones; never more than one."""
    deadline = time.monotonic() + 120
    while True:
        kernels = []
        for pid in programs(appliance):
            with suppress(FileNotFoundError, ProcessLookupError):
                kernels += [pid] if Path(f"/proc/{pid}/exe").readlink().name == "linux.uml" else []
        if len(kernels) == 1 and kernels[0] not in earlier:
            return kernels[0]
        assert time.monotonic() < deadline, kernels
        time.sleep(0.05)


def ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def test_one_machine_waits_for_each_job_and_has_it_alone(keeping: Appliance, tmp_path: Path) -> None:
    upload, kernels, said = image(tmp_path, "marks", MARKS), [waiting(keeping)], []
    for _ in range(2):
        job = keeping.submit(upload)
        result = keeping.wait(job)
        assert (result["status"], result["boot_path"], result["attempt"]) == ("success", "pooled", 1), result
        said.append(keeping.fetch(job, "output.log"))
        kernels.append(waiting(keeping, *kernels))
    assert len(set(kernels)) == 3
    assert [len(words.split()) for words in said] == [1, 1]
    assert said[0] != said[1]


def test_machine_that_waits_takes_what_a_job_depends_on(keeping: Appliance, tmp_path: Path) -> None:
    first = keeping.submit(image(tmp_path, "first", MARKS))
    keeping.wait(first)
    waiting(keeping)
    script = b"#!/bin/sh\ncat /deps/first/made\n"
    job = keeping.submit(image(tmp_path, "second", script, f'[dependencies]\nresults = ["{first}"]\n'))
    result = keeping.wait(job)
    assert (result["status"], result["boot_path"]) == ("success", "pooled"), result
    assert keeping.fetch(job, "output.log") == b"made\n"


def resting(appliance: Appliance) -> int:
    """The same, once it has come to rest: it wakes up a few times a second, as any kernel does."""
    pid, deadline = waiting(appliance), time.monotonic() + 120
    while True:
        before = ticks(pid)
        time.sleep(LOOK_S)
        if ticks(pid) - before <= 0.03 * LOOK_S * os.sysconf("SC_CLK_TCK"):
            return pid
        assert time.monotonic() < deadline


def test_machine_that_waits_takes_little_memory_and_hardly_any_processor_time(keeping: Appliance) -> None:
    pid = resting(keeping)
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert resident is not None
    assert int(resident[1]) * 1024 < MOST_WAITING_BYTES


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_machine_that_fails_while_it_waits_costs_its_job_no_attempt(
    keeping: Appliance, tmp_path: Path, how: signal.Signals
) -> None:
    os.kill(resting(keeping), how)
    result = keeping.wait(keeping.submit(image(tmp_path, "unharmed", b"#!/bin/sh\necho here\n")))
    assert (result["status"], result["boot_path"], result["attempt"]) == ("success", "cold", 1), result


# -- when it fails -------------------------------------------------------------------------------------------


def test_guest_that_panics_ends_its_job_once(working: Appliance, tmp_path: Path) -> None:
    result = working.wait(working.submit(image(tmp_path, "panics", PANICS)))
    assert (result["status"], result["attempt"], result["accelerator"]) == ("no-result", 1, "uml"), result
    assert "next try in" not in working.log.read_text()


@pytest.mark.usefixtures("uml_base")
def test_root_and_memory_that_are_both_full_end_what_fills_them_and_no_machine(images: Path, tmp_path: Path) -> None:
    """Both are files in the memory of its jail, which has room for all of them."""
    shape = msgspec.structs.replace(machines.of_kind("uml", images), memory_bytes=192 * 2**20)
    task = machines.assignment(tmp_path / "run", job_directory(tmp_path / "job", FILLS))
    with Machine.start(shape) as machine:
        ending = machine.run(task)
    assert (ending.claims.exit_code, ending.claims.starved) == (137, "head"), ending
    assert (ending.claims.clean, ending.status) == (True, 0), ending
    assert "No space left on device" in task.output.read_text()


def test_machine_that_is_killed_is_tried_once_more(working: Appliance, tmp_path: Path) -> None:
    job = working.submit(image(tmp_path, "killed", HANGS))
    for _ in range(2):
        working.wait_until_running(job)
        output = working.place(job) / "output.log"
        for pid in programs(working):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while output.exists() and output.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    result = working.wait(job)
    assert (result["status"], result["attempt"]) == ("no-result", 1)
    assert "twice" in result["reason"]
    assert "next try in" not in working.log.read_text()


def test_machine_that_hangs_is_killed_at_its_deadline(working: Appliance, tmp_path: Path) -> None:
    job = working.submit(image(tmp_path, "stopped", HANGS, 'timeout = "3s"\n'))
    working.wait_until_running(job)
    for pid in programs(working):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    result = working.wait(job)
    assert (result["status"], result["attempt"]) == ("timeout", 1)
    assert programs(working) == []


def test_kill_9_of_the_runner_ends_its_machines_and_the_job_is_run_again(working: Appliance, tmp_path: Path) -> None:
    job = working.submit(image(tmp_path, "orphan", b"#!/bin/sh\necho running\nsleep 5\n"))
    working.wait_until_running(job)
    left = programs(working)
    assert left
    os.kill(working.parts()["runner"], signal.SIGKILL)
    result = working.wait(job)
    assert (result["status"], result["attempt"]) == ("success", 2)
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


def test_machine_is_kept_on_one_processor(working: Appliance, tmp_path: Path) -> None:
    job = working.submit(image(tmp_path, "kept", HANGS))
    working.wait_until_running(job)
    places = [os.sched_getaffinity(pid) for pid in programs(working)]
    assert places
    assert {len(place) for place in places} == {1}
    with working.session() as ftp:
        ftp.delete(f"/running/{job}")
    assert working.wait(job)["status"] == "cancelled"
