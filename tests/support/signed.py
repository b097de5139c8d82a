"""Results that an appliance has signed, without a machine: published as the runner does, by a key of their own."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp.config import TrustSection
from construir_ftp.jobs.result import ARTIFACTS, CONSOLE, OUTPUT, WISHES, Artifact, Signer, Status
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.machine.outcome import Outcome
from construir_ftp.runner.artifacts import Artifacts
from construir_ftp.runner.attempt import Attempt
from construir_ftp.runner.publish import publish
from construir_ftp.trust.seal import Seal
from tests.support.records import record

HOST = "build.example.org"
ID = "20261129T120000Z-0000-greet"
MADE = {"greet.deb": b"not really a package\n", "greet.txt": b"hello\n"}


def seal(place: Path) -> Seal:
    """The key of an appliance whose spool is `place`."""
    place.mkdir(exist_ok=True)
    return Seal.of(place, TrustSection(name=HOST))


def result(
    spool: Spool,
    sealed: Seal | None,
    job_id: str = ID,
    *,
    made: dict[str, bytes] = MADE,
    status: Status = "success",
    upload: bytes = b"an upload",
    image: bytes = b"an image",
    signers: tuple[Signer, ...] = (),
) -> Path:
    """The directory, in done/, of a result with an image, logs and artifacts."""
    job = Job(spool.claims.path / job_id)
    (job.path / ARTIFACTS).mkdir(parents=True)
    known = record(
        "alice",
        upload=upload,
        name="greet",
        codec="zstd",
        filesystem="ext4",
        image_bytes=2**20,
        upload_sha256=hashlib.sha256(upload).hexdigest(),
        received=datetime.now(UTC),
        source_signers=signers,
    )
    (job.path / "job.json").write_bytes(msgspec.json.encode(known))
    others = {known.image_name(): image, OUTPUT: b"hello\n", CONSOLE: b"Linux\n", WISHES: b'outputs = ["*"]\n'}
    for name, content in {**others, **{f"{ARTIFACTS}/{name}": content for name, content in made.items()}}.items():
        (job.path / name).write_bytes(content)
    files = [_artifact(name, what) for name, what in made.items()]
    ended = Outcome(status, "it ended so", 0 if status == "success" else 1)
    return publish(spool, sealed, Attempt.of(job), ended, Artifacts(files=tuple(files))).job.path


def _artifact(name: str, content: bytes) -> Artifact:
    digest = hashlib.sha256(content).hexdigest()
    return Artifact(name, name, len(content), digest, executable=content.startswith(b"#!"))
