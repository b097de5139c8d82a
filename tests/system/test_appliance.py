"""The appliance as its owner knows it: started, killed, stopped, starved, and what becomes of the jobs."""

import ftplib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from construir_ftp.appliance.supervisor import PARTS
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jail import orphans
from construir_ftp.pack import pack
from tests.support import machines
from tests.support.appliance import CONFIG, WARM, Appliance, construir
from tests.support.images import job_directory
from tests.support.places import JOBS
from tests.support.prison import descendants


def processes_with(word: str) -> list[int]:
    """Pids of living processes whose command line holds `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until_gone(word: str) -> None:
    deadline = time.monotonic() + 60
    while processes_with(word):
        assert time.monotonic() < deadline, processes_with(word)
        time.sleep(0.05)


def machines_of(appliance: Appliance) -> list[int]:
    """A pidfd for every QEMU below its runner: it is readable once that has ended."""
    found = []
    for pid in descendants(appliance.parts()["runner"]):
        with suppress(OSError):
            descriptor = os.pidfd_open(pid)
            if Path(f"/proc/{pid}/comm").read_text().startswith("qemu"):
                found.append(descriptor)
            else:
                os.close(descriptor)
    return found


def wait_until_told(appliance: Appliance, why: str) -> None:
    """Until the status says why no job is taken; while it is tried again there is nothing to say."""
    deadline = time.monotonic() + 60
    while why not in construir("status", f"--spool={appliance.spool}", check=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.fixture
def warm(tmp_path: Path, base: BaseImage) -> Iterator[Appliance]:
    """One that keeps machines waiting."""
    with Appliance(tmp_path, WARM).running() as running:
        yield running


def test_killed_appliance_leaves_no_process_and_finishes_its_job_after_the_restart(
    warm: Appliance, hangs: Path, hello: Path
) -> None:
    running = warm.submit(hangs)
    warm.wait_until_running(running)
    waiting = [warm.submit(hello) for _ in range(3)]
    assert warm.process is not None
    there = machines_of(warm)
    for pid in [warm.process.pid, *warm.parts().values()]:
        os.kill(pid, signal.SIGKILL)
    warm.process.wait()
    wait_until_gone(str(warm.spool))
    assert there
    for descriptor in there:
        assert select.select([descriptor], [], [], 60)[0], "a machine outlives its runner"
        os.close(descriptor)
    # Whatever machines it has then.
    warm.config.write_text(machines.light(WARM).replace('"10min"', '"15s"'))
    warm.start()
    assert [warm.wait(job)["status"] for job in waiting] == ["success"] * 3
    result = warm.wait(running)
    assert (result["status"], result["attempt"]) == ("timeout", 2)
    assert warm.states()["done"] == sorted([running, *waiting])


# Whatever starts on this host sweeps it, such as an appliance of a test beside this one: who was first may be another.
TRIES = 5


def test_start_ends_what_a_killed_runner_had_left(shared_appliance: Appliance) -> None:
    assert any(ends_what_is_left(shared_appliance) for _ in range(TRIES))


def ends_what_is_left(appliance: Appliance) -> bool:
    """Whether what outlived its owner, and is ended at any rate, is told of by the start."""
    appliance.stop(signal.SIGKILL)
    wait_until_gone(str(appliance.spool))
    before = appliance.log.read_text()
    gone = subprocess.Popen(["true"])
    gone.wait()
    mark = f"{orphans.owner().partition('-')[0]}-{gone.pid}-1"
    env = {"PATH": "/usr/bin:/bin", orphans.VARIABLE: mark}
    with subprocess.Popen(["sleep", "1000"], env=env) as left:
        appliance.start()
        assert left.wait(30) == -signal.SIGKILL
    # The runner sweeps before it says so.
    appliance.wait_until_logged("running jobs of", before.count("running jobs of") + 1)
    return "that an earlier runner had left" in appliance.log.read_text()[len(before) :]


def test_parts_end_when_only_their_supervisor_is_killed(appliance: Appliance, hangs: Path) -> None:
    running = appliance.submit(hangs)
    appliance.wait_until_running(running)
    assert appliance.process is not None
    appliance.process.kill()
    appliance.process.wait()
    wait_until_gone(str(appliance.spool))
    assert appliance.states()["queue"] == [running]


def test_killed_parts_are_started_again(shared_appliance: Appliance, hello: Path) -> None:
    before = shared_appliance.parts()
    assert sorted(before) == sorted({*PARTS} - {"news", "pilots"})
    logged = shared_appliance.log.stat().st_size
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    shared_appliance.find_port(logged)
    assert shared_appliance.wait(shared_appliance.submit(hello))["status"] == "success"
    after = shared_appliance.parts()
    assert sorted(after) == sorted({*PARTS} - {"news", "pilots"})
    assert not set(after.values()) & set(before.values())


def test_stop_takes_no_new_job_and_requeues_what_still_runs(appliance: Appliance, hangs: Path) -> None:
    running = appliance.submit(hangs)
    appliance.wait_until_running(running)
    assert appliance.stop() == 0
    assert appliance.states() == {"incoming": [], "queue": [running], "running": [], "done": []}
    left = {path.name: path for path in (appliance.spool / "queue" / running).iterdir()}
    assert sorted(left) == ["attempts", "job.json", "upload"]
    # A stop is nobody's fault: it uses up none of the three attempts.
    assert left["attempts"].stat().st_size == 0


def test_second_appliance_on_one_spool_ends_with_a_word(shared_appliance: Appliance) -> None:
    second = construir("serve", "--port=0", f"--spool={shared_appliance.spool}")
    assert second.returncode == 1
    assert f"another runner already works on {shared_appliance.spool}" in second.stderr
    assert shared_appliance.process is not None
    assert shared_appliance.process.poll() is None


def test_port_that_is_taken_ends_with_a_word(shared_appliance: Appliance, tmp_path: Path) -> None:
    second = construir("serve", f"--port={shared_appliance.port}", f"--spool={tmp_path / 'other'}")
    assert second.returncode == 1
    assert str(shared_appliance.port) in second.stderr


def test_nothing_is_imported_from_the_directory_it_was_started_in(tmp_path: Path) -> None:
    elsewhere, traces = tmp_path / "elsewhere", tmp_path / "traces"
    elsewhere.mkdir()
    traces.mkdir()
    for name in ("construir_ftp", "logging", "json"):
        (elsewhere / f"{name}.py").write_text(f"open({str(traces / name)!r}, 'w').close()\n")
    appliance = Appliance(tmp_path)
    appliance.program = [str(Path(sys.executable).with_name("construir"))]
    with appliance.running(("env", "-C", str(elsewhere))):
        appliance.wait_until_logged("running jobs of")
        appliance.wait_until_logged("to look at them: construir serve web")
    assert list(traces.iterdir()) == []


def test_job_waits_while_qemu_is_missing_and_runs_once_it_is_there(tmp_path: Path, hello: Path) -> None:
    qemu = tmp_path / "qemu"
    appliance = Appliance(tmp_path, CONFIG.replace("[machine]", f'[machine]\naccelerator = "tcg"\nqemu = "{qemu}"'))
    appliance.start()
    try:
        job = appliance.submit(hello)
        appliance.wait_until_logged("not installed")
        assert appliance.states()["queue"] == [job]
        qemu.write_text('#!/bin/sh\nexec qemu-system-x86_64 "$@"\n')
        qemu.chmod(0o755)
        result = appliance.wait(job)
        assert (result["status"], result["attempt"]) == ("success", 1)
    finally:
        appliance.stop()


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        ("echo 'cannot set up guest memory' >&2; exit 1", "cannot set up guest memory"),
        ("exec sleep 1000", "hung for 1 s"),
        ("trap '' TERM; while :; do sleep 0.1; done", "hung for 1 s"),
    ],
    ids=["fails", "hangs", "ignores TERM"],
)
def test_job_waits_while_machines_fail_and_runs_once_they_work(
    tmp_path: Path, hello: Path, fake: str, words: str
) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\n{fake}\n")
    qemu.chmod(0o755)
    config = CONFIG.replace('boot_timeout = "60s"', f'boot_timeout = "1s"\naccelerator = "tcg"\nqemu = "{qemu}"')
    appliance = Appliance(tmp_path, config)
    appliance.start()
    try:
        jobs = [appliance.submit(hello) for _ in range(2)]
        # Two machines of trial beside what the jobs were risked in: had it been theirs, they would be lost by now.
        appliance.wait_until_logged("no job can be run", 2)
        said = appliance.log.read_text()
        assert words in said
        pauses = [int(seconds) for seconds in re.findall(r"next try in (\d+) s", said)]
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 2 * pauses[0]
        wait_until_told(appliance, "no machine can be started")
        assert appliance.states()["queue"] == sorted(jobs)
        appliance.stop()
        wait_until_gone(str(appliance.spool))
        appliance.config.write_text(machines.light(CONFIG))
        appliance.start()
        for job in jobs:
            result = appliance.wait(job)
            assert (result["status"], result["attempt"] <= 2) == ("success", True)
    finally:
        appliance.stop()


def test_job_that_kills_the_runner_three_times_is_lost(appliance: Appliance, hangs: Path) -> None:
    job = appliance.submit(hangs)
    for attempt in (1, 2, 3):
        appliance.wait_until_logged(f"attempt {attempt},")
        appliance.wait_until_running(job)
        os.kill(appliance.parts()["runner"], signal.SIGKILL)
    result = appliance.wait(job)
    assert (result["status"], result["exit_code"], result["attempt"]) == ("lost", None, 3)
    assert "given up after 3 attempts" in result["reason"]


TALKS = b"""#!/bin/sh
number=0
while :; do
    number=$((number + 1))
    printf 'line \\033[1m%d\\n' $number
    printf 'console \\033[1m%d\\n' $number >/dev/console
    sleep 0.2
done
"""


def test_logs_of_a_running_job_grow_and_can_be_followed_by_anyone_and_nothing_else_of_it(
    shared_appliance: Appliance, tmp_path: Path
) -> None:
    pack.pack(job_directory(tmp_path / "talks", TALKS), tmp_path / "talks.img.zst", 2**20)
    job = shared_appliance.submit(tmp_path / "talks.img.zst")
    shared_appliance.wait_until_running(job)
    with shared_appliance.session("anonymous", "me@example.org") as ftp:
        assert sorted(ftp.nlst(f"/running/{job}")) == ["console.log", "output.log", "status.json"]
        # What a terminal would obey is kept as it is.
        follow(ftp, f"/running/{job}/output.log", b"line \x1b[1m3\n")
        follow(ftp, f"/running/{job}/console.log", b"console \x1b[1m3\r\n")
        for name in ("upload", "disk.img", "job.json"):
            with pytest.raises(ftplib.error_perm):
                ftp.retrbinary(f"RETR /running/{job}/{name}", print)
    assert shared_appliance.states()["running"] == [job]
    with shared_appliance.session() as ftp:
        ftp.rmd(f"/running/{job}")
    assert shared_appliance.wait(job)["status"] == "cancelled"


def follow(ftp: ftplib.FTP, path: str, mark: bytes) -> None:
    """Fetch, again and again, what has come since, until it has grown twice and says so."""
    deadline, seen, times = time.monotonic() + 60, bytearray(), 0
    while times < 3 or mark not in seen:
        assert time.monotonic() < deadline, seen
        before = len(seen)
        ftp.retrbinary(f"RETR {path}", seen.extend, rest=before)
        times += len(seen) > before
        time.sleep(0.05)


def with_images(config: str, images: Path) -> str:
    """The same configuration, but with base images elsewhere."""
    where = f'[images]\npath = "{images}"\n'
    return config.replace("[images]\n", where) if "[images]\n" in config else config + where


def test_uploads_are_accepted_while_the_base_image_is_missing(
    tmp_path: Path, hello: Path, light_base: BaseImage
) -> None:
    empty, base = tmp_path / "images", light_base
    empty.mkdir()
    appliance = Appliance(tmp_path, with_images(machines.light(CONFIG), empty))
    appliance.start()
    try:
        job = appliance.submit(hello)
        appliance.wait_until_logged(f"run: construir image build {base.name}")
        assert appliance.states()["queue"] == [job]
        (empty / base.name).symlink_to(base.path)
        assert appliance.wait(job)["status"] == "success"
    finally:
        appliance.stop()


def linked_copy(base: BaseImage, images: Path) -> Path:
    """The directory of a base image whose parts are those of another one."""
    copy = images / base.name
    copy.mkdir(parents=True)
    for part in base.path.iterdir():
        (copy / part.name).symlink_to(part)
    return copy


def damaged_kernel(base: BaseImage, place: Path) -> Path:
    kernel = bytearray(base.kernel.read_bytes())
    kernel[len(kernel) // 2] ^= 1
    place.write_bytes(kernel)
    return place


def test_a_job_whose_base_image_is_damaged_while_it_runs_is_run_again_on_the_mended_one(
    tmp_path: Path, base: BaseImage
) -> None:
    kernel = linked_copy(base, tmp_path / "images") / baseimage.KERNEL
    upload = tmp_path / "slow.img.zst"
    pack.pack(job_directory(tmp_path / "slow", b"#!/bin/sh\necho begun\nsleep 5\n"), upload)
    appliance = Appliance(tmp_path, f'{CONFIG}\n[images]\npath = "{tmp_path}/images"\n')
    with appliance.running():
        job = appliance.submit(upload)
        appliance.wait_until_running(job)
        damaged_kernel(base, tmp_path / "damaged").rename(kernel)
        appliance.wait_until_logged(f"base image '{base.name}' has changed while a machine ran on it")
        assert appliance.states()["done"] == []
        (tmp_path / "mended").symlink_to(base.kernel)
        (tmp_path / "mended").rename(kernel)
        assert appliance.wait(job)["status"] == "success"
        assert appliance.log.read_text().count(f"job {job}: attempt 1,") == 2, "that it ran on it does not count"


def test_damaged_base_image_stops_jobs_and_says_so(tmp_path: Path, hello: Path, base: BaseImage) -> None:
    kernel = linked_copy(base, tmp_path / "images") / baseimage.KERNEL
    kernel.unlink()
    damaged_kernel(base, kernel)
    appliance = Appliance(tmp_path, f'{CONFIG}\n[images]\npath = "{tmp_path}/images"\n')
    appliance.start()
    try:
        job = appliance.submit(hello)
        appliance.wait_until_logged("kernel is not what was built")
        assert appliance.states()["queue"] == [job]
    finally:
        appliance.stop()


def test_ten_contributors_at_once_all_get_their_results(shared_appliance: Appliance, hello: Path) -> None:
    jobs = [shared_appliance.submit(hello, f"hello-{number}.img.zst") for number in range(10)]
    assert len(set(jobs)) == 10
    for result in [shared_appliance.wait(job) for job in jobs]:
        said = (shared_appliance.spool / "done" / result["id"] / "console.log").read_text()
        assert result["status"] == "success", f"{result}\n{said}\n{shared_appliance.log.read_text()}"


def test_appliance_that_must_have_a_jail_does_not_start_without_one(tmp_path: Path) -> None:
    """Nor runs a job by hand; the check says what is missing, and that it would be a problem."""
    config = tmp_path / "construir.toml"
    config.write_text(f"{CONFIG}[jail]\nrequire_jail = true\n")
    places = (f"--config={config}", f"--spool={tmp_path / 'spool'}")
    for words in (("serve", "--port=0"), ("run", str(JOBS / "hello"), "-o", str(tmp_path / "result"))):
        refused = without_bubblewrap(*words, *places)
        assert refused.returncode == 1, refused.stderr
        assert "jails are required, and can't be had: " in refused.stderr
        assert "apt install bubblewrap" in refused.stderr
    assert not (tmp_path / "result").exists()
    # Without base images, which it would read from end to end.
    check = ("check", *places, f"--images={tmp_path / 'images'}")
    assert "jails are required" in without_bubblewrap(*check).stdout
    config.write_text(CONFIG)
    assert "network namespace, IPC namespace" in without_bubblewrap(*check).stdout


def without_bubblewrap(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command on a host that has none."""
    script = 'mount --bind /dev/null /usr/bin/bwrap || exit 77; exec "$@"'
    argv = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    argv += [sys.executable, "-m", "construir_ftp", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77 or done.stderr.startswith("unshare: "):
        pytest.skip(f"can't be tried here: {done.stderr.strip()}")
    return done
