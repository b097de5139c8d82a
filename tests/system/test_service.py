"""What an operator does to a working appliance: take it out of service and back, end or delete anybody's job, look."""

import ftplib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from construir_ftp import config
from construir_ftp.appliance import health
from construir_ftp.errors import RefusedError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import service
from construir_ftp.jobs.spool import Spool
from tests.support import farm, images, machines
from tests.support.appliance import CONFIG, Appliance, construir
from tests.support.ftpclient import LONG_S

# A computer on which nobody has named a server.
NOBODY = {name: value for name, value in os.environ.items() if not name.startswith("CONSTRUIR_")}


@pytest.fixture
def one_slot(tmp_path: Path, base: BaseImage) -> Iterator[Appliance]:
    appliance = Appliance(
        tmp_path, machines.light(CONFIG.replace("slots = 2", "slots = 1").replace('"30s"', '"10min"'))
    )
    appliance.start()
    yield appliance
    appliance.stop()


@pytest.fixture
def short(tmp_path: Path) -> Path:
    job = images.job_directory(tmp_path / "short", b"#!/bin/sh\necho begun\n")
    construir("pack", job, "-o", tmp_path / "short.img.zst", "--space", "1MiB", check=True)
    return tmp_path / "short.img.zst"


def operate(appliance: Appliance, *words: str) -> str:
    """What a command of the operator's prints."""
    said = construir(*words, f"--spool={appliance.spool}", f"--config={appliance.config}", env=NOBODY)
    assert said.returncode == 0, said.stderr
    return said.stdout + said.stderr


def assert_waits_until_ctrl_c(appliance: Appliance) -> None:
    """A drain that waits ends at Ctrl-C, and says how the appliance stays."""
    argv = [sys.executable, "-m", "construir_ftp", "drain", f"--spool={appliance.spool}"]
    with subprocess.Popen(argv, env=NOBODY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as draining:
        assert draining.stdout is not None
        assert draining.stdout.readline() == "no uploads are taken, and no jobs started\n"
        assert draining.stdout.readline() == "1 run, 1 wait\n"
        draining.send_signal(signal.SIGINT)
        printed, told = draining.communicate(timeout=LONG_S)
    assert (draining.returncode, printed) == (130, "")
    assert told.strip() == "construir: waits no more; the appliance stays out of service until: construir resume"


def test_drained_appliance_ends_what_runs_and_takes_nothing_until_it_is_resumed(
    one_slot: Appliance, short: Path, hangs: Path
) -> None:
    running, waiting = one_slot.submit(hangs), one_slot.submit(short)
    one_slot.wait_until_running(running)
    assert operate(one_slot, "drain", "--no-wait") == "no uploads are taken, and no jobs started\n"
    with pytest.raises(ftplib.error_temp, match=r"^452 Refused: no uploads are taken at the moment: the appliance is "):
        one_slot.submit(short)
    assert_waits_until_ctrl_c(one_slot)
    operate(one_slot, "cancel", running)
    said = operate(one_slot, "drain")
    assert said.endswith("nothing runs, 1 wait; stop construir serve now, or go on with: construir resume\n")
    assert one_slot.wait(running)["status"] == "cancelled"
    status = operate(one_slot, "status")
    assert re.search(rf"(?m)^ *state +jobs +oldest *\n *queue +1 +{waiting} *$", status), status
    assert "uploads are refused: the appliance is being taken out of service\n" in status
    assert "no job is taken at the moment: the appliance is being taken out of service\n" in status
    assert "it is out of service until: construir resume\n" in status

    one_slot.stop()
    one_slot.start()
    with one_slot.session() as ftp:
        told = ftp.sendcmd("SITE QUEUE")
    assert "no uploads are taken: the appliance is being taken out of service" in told, "it stays so"
    assert (one_slot.spool / "queue" / waiting).is_dir()
    assert operate(one_slot, "resume") == "uploads and jobs are taken again\n"
    assert one_slot.wait(waiting)["status"] == "success"
    assert operate(one_slot, "resume") == "uploads and jobs were being taken already\n"

    last = one_slot.submit(short)
    assert operate(one_slot, "drain", "--queue").endswith(
        "nothing runs, 0 wait; stop construir serve now, or go on with: construir resume\n"
    )
    assert one_slot.wait(last)["status"] == "success", "what waited was run, too"


def test_pause_and_drain_leave_of_each_other_what_they_say(tmp_path: Path) -> None:
    there = Appliance(tmp_path, machines.light(CONFIG))
    spool = Spool.prepare(there.spool)
    operate(there, "pause")
    said = operate(there, "drain", "--no-wait")
    assert said.startswith("no uploads are taken, and no jobs started; machines go on, to end\n")
    assert service.read(spool.path).runs_machines
    drained = "the appliance is being taken out of service"
    for _ in range(2):
        assert operate(there, "pause").startswith(
            "machines stand still, and no jobs are started; "
            f"uploads stay refused: {drained}; go on with: construir resume\n"
        )
    with pytest.raises(RefusedError, match=f"no uploads are taken at the moment: {drained}; try again later"):
        service.read(spool.path).demand_uploads()
    status = operate(there, "status")
    assert f"uploads are refused: {drained}\n" in status
    assert "it is out of service and paused until: construir resume\n" in status
    operate(there, "resume")
    assert service.read(spool.path) == service.Service()


def test_drain_says_that_no_appliance_runs(tmp_path: Path) -> None:
    there = Appliance(tmp_path, machines.light(CONFIG))
    Spool.prepare(there.spool)
    begun, absent = (
        "no uploads are taken, and no jobs started\n",
        "but no appliance runs here; start it with: construir serve\n",
    )
    assert operate(there, "drain") == f"{begun}nothing runs, 0 wait; go on with: construir resume\n{absent}"
    assert operate(there, "drain", "--no-wait") == begun + absent


def test_uploads_under_temporary_names_become_no_jobs_while_it_is_drained(one_slot: Appliance, short: Path) -> None:
    with one_slot.session() as ftp:
        with short.open("rb") as file:
            ftp.storbinary("STOR /queue/short.img.zst.part", file)
        operate(one_slot, "drain", "--no-wait")
        with pytest.raises(ftplib.error_temp, match=r"^452 Refused: no uploads are taken"):
            ftp.rename("/queue/short.img.zst.part", "/queue/short.img.zst")
        operate(one_slot, "resume")
        assert ftp.rename("/queue/short.img.zst.part", "/queue/short.img.zst").startswith("250 Accepted as job")


def test_operator_ends_and_deletes_anybodys_job(one_slot: Appliance, hangs: Path) -> None:
    running, waiting = one_slot.submit(hangs), one_slot.submit(hangs)
    one_slot.wait_until_running(running)
    assert f"job {waiting} is cancelled" in operate(one_slot, "cancel", waiting)
    assert one_slot.wait(waiting)["reason"] == "cancelled by the operator before it ran"
    assert f"job {running} is cancelled" in operate(one_slot, "cancel", "--here", "hangs")
    result = one_slot.wait(running)
    assert (result["status"], result["reason"]) == (
        "cancelled",
        "cancelled by the operator while it ran; the machine was killed",
    )
    places = (f"--spool={one_slot.spool}",)
    assert construir("delete", running[:-1], "nothing", *places).returncode == 66, "nothing is deleted"
    several = construir("delete", "hangs", *places)
    assert (several.returncode, several.stderr.count("\n")) == (2, 1)
    done = construir("cancel", "--here", running, *places)
    assert (done.returncode, done.stderr.count("\n")) == (66, 1)
    assert f"it is done, and its result is deleted by: construir delete {running}\n" in done.stderr
    assert operate(one_slot, "delete", running, waiting) == f"deleted {running}\ndeleted {waiting}\n"
    assert list((one_slot.spool / "done").iterdir()) == []
    gone = construir("cancel", "--here", running, *places)
    assert (gone.returncode, gone.stderr.count("\n")) == (66, 1)
    assert gone.stderr.endswith("in queue/ or running/ here\n")


def test_a_job_that_is_not_done_is_not_deleted_but_what_ends_it_is_named(one_slot: Appliance, hangs: Path) -> None:
    running = one_slot.submit(hangs)
    early = construir("delete", running, f"--spool={one_slot.spool}")
    assert (early.returncode, early.stderr.count("\n")) == (66, 1)
    assert f"it waits or runs, and is ended by: construir cancel --here {running}\n" in early.stderr


def test_a_contributor_without_a_server_is_told_to_name_one(tmp_path: Path) -> None:
    said = construir("cancel", "x", f"--spool={tmp_path}", env={**NOBODY, "HOME": str(tmp_path)})
    assert said.returncode == 78
    assert "set CONSTRUIR_SERVER" in said.stderr


def test_status_says_whether_the_appliance_runs_and_the_log_what_it_does(one_slot: Appliance, hangs: Path) -> None:
    assert one_slot.process is not None
    assert operate(one_slot, "status").startswith(f"the appliance runs, as process {one_slot.process.pid}\n")
    job = one_slot.submit(hangs)
    one_slot.wait_until_running(job)
    one_slot.stop()
    assert operate(one_slot, "status").startswith("no appliance runs here; start it with: construir serve\n")
    log = one_slot.log.read_text()
    assert "construir.ftp: TLS is off: passwords travel in clear\n" in log
    assert f"construir.runner: job {job} of alice: taken, to run\n" in log
    assert "construir: told to stop: ending ftp, runner, janitor, site\n" in log
    assert f"construir.runner: stopping; 1 jobs run, and have 0.5 s to end: {job}\n" in log
    assert log.endswith("construir: stopped\n")


def test_status_says_that_uploads_are_refused_for_want_of_room(tmp_path: Path) -> None:
    config = tmp_path / "construir.toml"
    config.write_text('[spool]\nmin_free = "1000TiB"\n')
    (tmp_path / "spool/queue").mkdir(parents=True)
    for state in ("running", "done"):
        (tmp_path / "spool" / state).mkdir()
    said = construir("status", f"--spool={tmp_path / 'spool'}", f"--config={config}", check=True).stdout
    assert "uploads are refused: there is not enough room on the disk\n" in said


def test_without_a_base_image_the_start_says_what_to_run_and_status_does_until_it_is_there(
    tmp_path: Path, base: BaseImage
) -> None:
    place = tmp_path / "images"
    there = Appliance(tmp_path, f'{CONFIG}[images]\npath = "{place}"\n')
    why = f"base image '{base.name}' not found in {place}, where there is: none; run: construir image build {base.name}"
    with there.running():
        there.wait_until_logged(f"no job could be run as it is: {why}")
        assert operate(there, "status").count(f"no job can be run: {why}") == 1
        assert msgspec.json.decode(operate(there, "status", "--json"))["why_no_jobs"].startswith("no job can be run: ")
        assert "Base image" in {
            found.subject for found in health.look(config.load(there.config)) if found.state == "problem"
        }
        place.mkdir()
        (place / base.name).symlink_to(base.path)
        assert "no job can be run" not in operate(there, "status")
        assert msgspec.json.decode(operate(there, "status", "--json"))["why_no_jobs"] == ""


def test_a_node_without_a_base_image_says_so_and_one_that_runs_no_jobs_is_not_asked_for_any(tmp_path: Path) -> None:
    there = Appliance(tmp_path, f'{farm.FARM}[images]\npath = "{tmp_path / "images"}"\n')
    with there.running():
        node = farm.Node(there, "spare")
        node.start()
        farm.wait_until(lambda: "no job could be run as it is: base image" in node.log.read_text(), node.log.read_text)
        assert "no job can be run here: base image" in operate(there, "status")
        operate(there, "node", "drain", "local")
        assert "base image" not in operate(there, "status")
        node.stop()
