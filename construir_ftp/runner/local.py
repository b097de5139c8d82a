"""One job without a server: the same gate, the same machine, the same result directory, in a spool of its own."""

import shutil
import socket
from pathlib import Path

from construir_ftp import disk, gate, image, jobfile, pack, workplace
from construir_ftp.config import Config
from construir_ftp.court import Court
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.machine import accelerator
from construir_ftp.offer import Offer
from construir_ftp.pack import Wrapping
from construir_ftp.result import Result
from construir_ftp.runner.spare import Spare
from construir_ftp.runner.worker import Published, Worker
from construir_ftp.spool import Spool


def run(
    source: Path, output: Path | None, config: Config, stop: socket.socket, base: image.BaseImage | None = None
) -> tuple[Path, Result]:
    """Run a directory or an image as a job; return where its result is, and what it says.

    `output` must not exist; without one the result goes to the current directory, under the job's id. `base` is what to
    run it on, unless on the configured base image. Raises RefusedError where the gate would, UsageError,
    MachineUnavailableError, or ConstruirError when `stop` was readable.
    """
    if output is not None and output.exists():
        raise UsageError(f"{output} is there already; name another place with -o")
    base = base or image.find(config.images_path(), config.images.default)
    # Layers and earlier results are those of the appliance here, if there is one.
    offer = Offer.of(Spool.prepare(config.spool_path()), config)
    with workplace.make() as place:
        spool = Spool.prepare(place)
        _admit(spool, source, config, offer)
        worker = Worker(
            spool=spool,
            base=base,
            machine=config.machine,
            offer=offer,
            spare=Spare(offer.spare_memory_bytes),
            accelerator=accelerator.choose(config.machine, config.images_path(), base),
            max_disk_bytes=int(config.gate.max_image),
            artifact_limits=config.artifacts,
        )
        published = _run_to_its_end(spool, worker, stop)
        target = output or Path.cwd() / published.job.id
        shutil.copytree(published.job.path, target)
        return target, published.result


def _admit(spool: Spool, source: Path, config: Config, offer: Offer) -> None:
    incoming = spool.receive()
    if source.is_dir():
        pack.pack_directory(source, incoming.upload, Wrapping())  # as construir pack does, if nothing else is said
    else:
        disk.copy(source, incoming.upload)
    with Court(config.gate) as court:
        gate.admit(spool, incoming, jobfile.name_of(source), "local", court, offer)


def _run_to_its_end(spool: Spool, worker: Worker, stop: socket.socket) -> Published:
    while True:
        job = spool.take()
        if job is None:
            raise ConstruirError("the job has vanished from its spool; run it again")
        outcome = worker.run(job, stop, _wait_in_vain)
        if isinstance(outcome, Published):
            return outcome
        if not outcome.fault:
            raise ConstruirError("stopped before the job had ended")


def _wait_in_vain(_seconds: float) -> bool:
    # Whoever runs a job by hand is told at once that the disk is full.
    return True
