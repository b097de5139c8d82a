"""What a service manager is told by the parts that it starts: systemd would restart one that tells nothing."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from construir_ftp.appliance.supervisor import PARTS
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from tests.support import images
from tests.support.appliance import CONFIG, construir
from tests.support.ftpclient import LONG_S, users_text
from tests.support.records import record

WATCHDOG_S = 2.0
BOOT_S = 6


@contextlib.contextmanager
def part(
    name: str, place: Path, settings: str = CONFIG, **environment: str
) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A part that somebody has started who listens; ended by SIGTERM when the context is left."""
    config, spool = place / "construir.toml", place / "spool"
    config.write_text(f'{settings}[notify]\ncommand = ["true"]\n[slurm]\nmax_pilots = 1\n')
    Spool.prepare(spool)
    (spool / "site").mkdir()
    (spool / "users.toml").write_text(users_text("alice"))
    argv = [sys.executable, "-m", "construir_ftp", "serve", *name.split(), "--port=0"]
    argv += [f"--config={config}", f"--spool={spool}"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place / "notify"))
        manager.settimeout(LONG_S)
        told = {**os.environ, "NOTIFY_SOCKET": str(place / "notify"), **environment}
        with subprocess.Popen(argv, env=told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield manager, process
            finally:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                assert process.wait(LONG_S) == 0


@pytest.mark.parametrize("name", (*PARTS, "web"))
def test_each_part_says_that_it_is_ready_and_then_that_it_is_alive(name: str, tmp_path: Path) -> None:
    with part(name, tmp_path, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6))) as (manager, _):
        told = {manager.recv(100) for _ in range(6)}
    assert told >= {b"READY=1", b"WATCHDOG=1"}


@pytest.mark.parametrize("name", (*PARTS, "web"))
def test_one_that_is_stopped_in_its_tracks_tells_nothing(name: str, tmp_path: Path) -> None:
    with part(name, tmp_path, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6))) as (manager, process):
        while manager.recv(100) != b"WATCHDOG=1":
            pass
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        manager.settimeout(WATCHDOG_S)
        with pytest.raises(TimeoutError):
            for _ in range(2):  # one may have been sent before
                manager.recv(100)


def test_nothing_is_told_that_is_meant_for_another_process(tmp_path: Path) -> None:
    with part("janitor", tmp_path, WATCHDOG_USEC="100000", WATCHDOG_PID="1") as (manager, _):
        assert manager.recv(100) == b"READY=1"
        manager.settimeout(WATCHDOG_S)
        with pytest.raises(TimeoutError):
            manager.recv(100)


@pytest.mark.parametrize(
    ("name", "says"),
    [("news", "[notify] of the configuration names no way"), ("pilots", "Slurm starts no nodes: slurm.max_pilots")],
)
def test_a_part_that_nobody_wants_is_ready_and_ends_well(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "construir.toml").write_text(CONFIG)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LONG_S)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        where = f"--config={tmp_path / 'construir.toml'}", f"--spool={tmp_path / 'spool'}"
        done = construir("serve", name, *where, env=environment, check=True)
        assert manager.recv(100) == b"READY=1"
    assert says in done.stderr


def queue_a_job(place: Path) -> None:
    tree, spool = images.job_directory(place / "job", b"#!/bin/sh\n"), Spool.prepare(place / "spool")
    job = spool.receive()
    images.run("mke2fs", "-q", "-t", "ext4", "-d", tree, job.upload, "4M")
    size = job.upload.stat().st_size
    known = record("alice", filesystem="ext4", upload_bytes=size, image_bytes=size, received=datetime.now(UTC))
    spool.enqueue(spool.stage(job, known))


def heard_until(manager: socket.socket, told: bytes) -> tuple[bytes, float]:
    """The first message that begins so, and when it came."""
    while not (heard := manager.recv(100)).startswith(told):
        pass
    return heard, time.monotonic()


def test_runner_asks_for_patience_while_it_tries_whether_machines_come_up_again(
    tmp_path: Path, base: BaseImage
) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\nexec sleep 1000\n")
    qemu.chmod(0o755)
    machine = f'boot_timeout = "{BOOT_S}s"\naccelerator = "tcg"\nqemu = "{qemu}"'
    settings = CONFIG.replace('boot_timeout = "60s"', machine)
    with part("runner", tmp_path, settings, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6))) as (manager, _):
        heard_until(manager, b"READY=1")
        queue_a_job(tmp_path)
        while True:  # what comes before a job is over at once, a trial takes as long as a machine may
            asked, begun_s = heard_until(manager, b"EXTEND_TIMEOUT_USEC=")
            usual, ended_s = heard_until(manager, b"WATCHDOG_USEC=")
            if ended_s - begun_s > BOOT_S / 2:
                break
    watchdog = re.fullmatch(rb"EXTEND_TIMEOUT_USEC=\d+\nWATCHDOG_USEC=(\d+)", asked)
    assert watchdog
    assert int(watchdog[1]) / 1e6 > ended_s - begun_s
    assert usual == b"WATCHDOG_USEC=%d" % (WATCHDOG_S * 1e6)


def test_node_asks_for_patience_as_the_runner_does(tmp_path: Path, base: BaseImage) -> None:
    with part("node --name=far", tmp_path, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6))) as (manager, _):
        heard_until(manager, b"EXTEND_TIMEOUT_USEC=")
        heard_until(manager, b"READY=1")
        heard_until(manager, b"WATCHDOG=1")
