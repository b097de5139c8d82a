"""The job that a new version of a base image has to pass before it is given to anybody's."""

import socket
import tempfile
from pathlib import Path

import msgspec

from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.image import BaseImage
from construir_ftp.result import OUTPUT
from construir_ftp.runner import local
from construir_ftp.units import Duration

# What any job may count on: root, its directory, a root disk to write on, time, randomness, a whole package database.
_RUN_SH = """#!/bin/sh
set -eux
test "$(id -u)" = 0
test "$PWD" = /job
touch /usr/self-test /job/self-test /tmp/self-test /dev/shm/self-test
test "$(date +%Y)" -ge 2026
test "$(head -c 16 /dev/urandom | wc -c)" = 16
test -s /etc/machine-id
perl -e 'exit 0'
test -z "$(dpkg --audit)"
"""
_TIMEOUT_S = 300


def run(base: BaseImage, config: Config, stop: socket.socket) -> None:
    """Run it in a machine of `base`. Raises ConstruirError, with what it said last, if it does not succeed."""
    machine = msgspec.structs.replace(config.machine, timeout=Duration(_TIMEOUT_S))
    # Not /tmp, which is often memory.
    with tempfile.TemporaryDirectory(prefix="construir-selftest-", dir="/var/tmp") as name:
        job = Path(name) / "self-test"
        job.mkdir()
        (job / "run.sh").write_text(_RUN_SH)
        (job / "run.sh").chmod(0o755)
        config = msgspec.structs.replace(config, machine=machine)
        place, result = local.run(job, Path(name) / "result", config, stop, base)
        if result.status != "success":
            said = (place / OUTPUT).read_text(errors="replace").splitlines() or [""]
            raise ConstruirError(
                f"base image '{base.name}': its new version did not pass the self-test, and is not used: "
                f"{result.reason} (its last words: {said[-1]!a})"
            )
