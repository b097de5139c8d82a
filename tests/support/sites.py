"""Results as they lie in done/, made up; a site that is written of a spool; a web server of it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from construir_ftp.config import Config, SpoolSection
from construir_ftp.jobs.result import Artifact, BaseImageUsed, LayerUsed, Measured, Result, Used, encode
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.site import server
from construir_ftp.site.publisher import Publisher, Told
from construir_ftp.surroundings import SiteSection
from tests.support import records

BEGIN = datetime(2026, 11, 22, 10, 41, 2, tzinfo=UTC)
LONG_S = 120


def result(job_id: str = "20261122T104102Z-7f3a-hello", **changes: object) -> Result:
    """One of an ordinary job, with those fields changed."""
    usual = Result(
        id=job_id,
        name="hello",
        contributor="alice",
        status="success",
        reason="run.sh ended with exit status 0",
        exit_code=0,
        image="hello.img.zst",
        codec="zstd",
        filesystem="ext2",
        upload_sha256="ab" * 32,
        upload_bytes=2765,
        image_bytes=1 << 20,
        received=BEGIN,
        booted=BEGIN + timedelta(seconds=2),
        started=BEGIN + timedelta(seconds=3),
        first_output=BEGIN + timedelta(seconds=3),
        ended=BEGIN + timedelta(seconds=63),
        published=BEGIN + timedelta(seconds=64),
        accelerator="tcg",
        boot_path="warm",
        base_image=BaseImageUsed("bookworm-amd64", "sha256:" + "cd" * 32),
        memory_bytes=1 << 30,
        cpus=1,
        attempt=1,
        used=Used([LayerUsed("make-1234", "ef" * 32, ["make=4.3-4.1"])], []),
        artifacts=(Artifact("hello.txt", "out/hello.txt", 6, "12" * 32),),
        measured=Measured(cpu_seconds=2.2, peak_memory_bytes=1 << 28, output_bytes=6, qemu_status=0),
    )
    return msgspec.structs.replace(usual, **changes)


def put(spool: Spool, one: Result, output: bytes = b"hello\n", artifact: bytes = b"hello\n") -> Job:
    """Have a result come into done/ in one step, as the runner does it."""
    draft = spool.state("trash") / one.id
    (draft / "artifacts").mkdir(parents=True)
    (draft / "output.log").write_bytes(output)
    for file in one.artifacts:
        (draft / "artifacts" / file.name).write_bytes(artifact)
    if one.image:
        (draft / one.image).write_bytes(b"\0" * 4096)
    (draft / "result.json").write_bytes(encode(one))
    return Job(draft.rename(spool.state("done") / one.id))


def start(spool: Spool, name: str = "hello", contributor: str = "alice") -> Job:
    """Have a job run that nobody runs."""
    queued = records.send(spool, contributor, name=name, received=datetime.now(UTC))
    running = spool.take()
    assert running is not None
    assert running.id == queued.id
    return running


def config(spool: Spool, place: Path, **site: object) -> Config:
    """One of an appliance whose base images are elsewhere."""
    section = msgspec.structs.replace(SiteSection(), **site)
    whole = Config(spool=SpoolSection(path=str(spool.path), min_free=0), site=section)  # type: ignore[arg-type]
    return msgspec.structs.replace(whole, images=msgspec.structs.replace(whole.images, path=str(place / "images")))


@contextmanager
def publishing(spool: Spool, place: Path, told: Told = Told(), **site: object) -> Iterator[Publisher]:  # noqa: B008 - it never changes
    """A publisher that has looked until it knew all there was."""
    with closing(Publisher(spool, config(spool, place, **site), told)) as publisher:
        settle(publisher)
        yield publisher


def settle(publisher: Publisher, patience_s: float = LONG_S) -> None:
    """Have it look until it knows all there is."""
    deadline_s = time.monotonic() + patience_s
    while not publisher.look():
        assert time.monotonic() < deadline_s


@contextmanager
def served(site: Path) -> Iterator[int]:
    """The port of a real web server of ours, which has that directory."""
    stop, told = socket.socketpair()
    with stop, told, server.listening(site, "127.0.0.1", 0) as web:
        thread = threading.Thread(target=web.run, args=(told,))
        thread.start()
        try:
            yield web.port
        finally:
            stop.send(b"!")
            thread.join(LONG_S)
