"""One job without a server: the same check, the same machine, the same result directory, in a spool of its own."""

import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from construir_ftp import files, locks
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.intake import admission
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.live_check import LiveCheck
from construir_ftp.jobs import modes, names, request
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.request import Dependencies
from construir_ftp.jobs.result import OUTPUT, Result
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers.resolver import Offer
from construir_ftp.machine import accelerator
from construir_ftp.machine.capacity import Spare
from construir_ftp.pack import pack
from construir_ftp.pack.pack import Wrapping
from construir_ftp.runner import worker
from construir_ftp.runner.attempt import Attempt, Published
from construir_ftp.runner.resources import Resources
from construir_ftp.trust.seal import Seal
from construir_ftp.units import Duration


def run(
    source: Path,
    output: Path | None,
    config: Config,
    stop: socket.socket,
    base: baseimage.BaseImage | None = None,
    tell: Callable[[Dependencies], None] = lambda _needs: None,
    asks: str | None = None,
    is_signed: bool = True,
    say: Callable[[str], None] = lambda _words: None,
    show: worker.Tell = lambda _doing, _progress: None,
) -> tuple[Path, Result]:
    """Run a directory or an image as a job; return where its result is, and what it says.

    `output` must not exist; without one the result goes to the current directory, under the job's id. `base` is what to
    run it on, unless on the configured base image. `tell` is called with what it depends on, before that is got ready.
    `asks` is the construir.toml that it is run by, if not by its own. The result is signed with the key here, if that
    is this user's, unless it need not be. `say` is called with what is waited for, in words;
    `show` as `tell` of worker.prepare.

    Raises RefusedError where a server would, UsageError, MachineUnavailableError, or ConstruirError if it was stopped.
    """
    if output is not None and output.exists():
        raise UsageError(f"{output} is there already; name another place with -o")
    _demand_writable(output or Path.cwd() / "result")
    base = base or baseimage.find(config.images_path(), config.images.default)
    # Layers and earlier results are those of the appliance here, if there is one.
    offer = msgspec.structs.replace(Offer.of(Spool.prepare(config.spool_path()), config), pinned=base)
    with locks.scratch_directory() as place:
        spool = Spool.prepare(place)
        tell(request.read(_admit(spool, source, config, offer, asks).record().construir_toml).dependencies)
        say(f"looking which machines of {base.name} can be had")  # at its first time here one is tried
        choice = accelerator.choose(config.machine, config.images_path(), base)
        say(f"booting a machine of {base.name}; {choice.reason}")
        resources = Resources(
            spool=spool,
            base=base,
            machine=config.machine,
            offer=offer,
            spare=Spare(offer.spare_memory_bytes),
            accelerator=choice,
            max_disk_bytes=int(config.gate.max_image),
            artifact_limits=config.artifacts,
            seal=_own_seal(config) if is_signed else None,
        )
        published = _run_to_its_end(spool, resources, stop, show)
        target = output or Path.cwd() / published.job.id
        shutil.copytree(published.job.path, target)
        modes.restore(target, published.result)
        return target, published.result


def _demand_writable(target: Path) -> None:
    """Raises ConstruirError where a directory can't be made there: before the job runs, whose result would be lost."""
    place = next(above for above in target.absolute().parents if above.exists())
    try:
        tempfile.TemporaryDirectory(prefix=".construir-", dir=place).cleanup()
    except OSError as error:
        raise ConstruirError(
            f"nothing can be put into {place}: {error.strerror}; name another place with -o"
        ) from error


def result_in(place: Path) -> Result:
    """What the result in a directory says. Raises ConstruirError."""
    return read_result(Job(place))


def _own_seal(config: Config) -> Seal | None:
    """The key of the appliance here, or this user's own; none where that is another user's."""
    try:
        return Seal.of(config.spool_path(), config.trust)
    except ConstruirError:
        return None


def _admit(spool: Spool, source: Path, config: Config, offer: Offer, asks: str | None) -> Job:
    """Check it as a server would, and put it into queue/. Raises RefusedError."""
    incoming = spool.receive()
    if source.is_dir():
        pack.pack_directory(source, incoming.upload, Wrapping())  # as construir pack does, if nothing else is said
    else:
        files.copy(source, incoming.upload)
    with JudgePool(config.gate) as judges, LiveCheck(judges, incoming.upload, name=source.name) as check:
        return admission.admit(spool, incoming, names.name_of(source), "local", check, offer, asks=asks)


def _run_to_its_end(spool: Spool, resources: Resources, stop: socket.socket, show: worker.Tell) -> Published:
    while True:
        job = spool.take()
        if job is None:
            raise ConstruirError("the job has vanished from its spool; run it again")
        prepared = worker.prepare(resources, job, stop, show)
        outcome = worker.run(resources, prepared, stop, _wait_in_vain) if isinstance(prepared, Attempt) else prepared
        if isinstance(outcome, Published):
            return outcome
        if not outcome.fault:
            raise ConstruirError("stopped before the job had ended")


def _wait_in_vain(_seconds: float, error: Exception) -> bool:
    # Whoever runs a job by hand is told at once that the disk is full, or the key can't be used.
    if isinstance(error, ConstruirError):
        raise error
    return True


# -- the self-test -----------------------------------------------------------------------------------------------

# The job that a new version of a base image has to pass before it is given to anybody's.


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


def self_test(base: BaseImage, config: Config, stop: socket.socket) -> None:
    """Run it in a machine of `base`. Raises ConstruirError, with what it said last, if it does not succeed."""
    machine = msgspec.structs.replace(config.machine, timeout=Duration(_TIMEOUT_S))
    # Not /tmp, which is often memory.
    with tempfile.TemporaryDirectory(prefix="construir-selftest-", dir="/var/tmp") as name:
        job = Path(name) / "self-test"
        job.mkdir()
        (job / "run.sh").write_text(_RUN_SH)
        (job / "run.sh").chmod(0o755)
        config = msgspec.structs.replace(config, machine=machine)
        place, result = run(job, Path(name) / "result", config, stop, base, is_signed=False)
        if result.status != "success":
            said = (place / OUTPUT).read_text(errors="replace").splitlines() or [""]
            raise ConstruirError(
                f"base image '{base.name}': its new version did not pass the self-test, and is not used: "
                f"{result.reason} (its last words: {said[-1]!a})"
            )
