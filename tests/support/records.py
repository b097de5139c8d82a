"""Jobs that no client has sent, and layers that nobody has built: what is known of them, and how they come."""

from datetime import UTC, datetime, timedelta

import msgspec

from construir_ftp.jobs import places
from construir_ftp.jobs.spool import Job, Record, Spool
from construir_ftp.layers.store import IMAGE, Layer, LayerManifest, Store

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
UPLOAD = b"what the contributor sent"


def record(contributor: str = "ann", after_s: int = 0, *, upload: bytes = UPLOAD, **facts: object) -> Record:
    """What is known of a job that came so long after NOON; `facts` are fields that are otherwise."""
    usual = Record(
        name="hello",
        contributor=contributor,
        codec="raw",
        filesystem="ext2",
        upload_bytes=len(upload),
        image_bytes=len(upload),
        upload_sha256="",
        received=NOON + timedelta(seconds=after_s),
    )
    return msgspec.structs.replace(usual, **facts)


def send(to: Spool, contributor: str = "ann", after_s: int = 0, *, upload: bytes = UPLOAD, **facts: object) -> Job:
    """A job that waits."""
    job = to.receive()
    job.upload.write_bytes(upload)
    return to.enqueue(to.stage(job, record(contributor, after_s, upload=upload, **facts)))


def put_layer(store: Store, name: str, **facts: object) -> Layer:
    """A layer with its name in place of an image; NAME@VERSION is NAME from now on. `facts` as above."""
    usual = LayerManifest(
        name=name,
        kind="published",
        base="sha256:base",
        architecture="amd64",
        contents=[],
        bytes=2**20,
        installed_bytes=2**20,
        sha256="0" * 64,
        created=NOON,
    )
    manifest = msgspec.structs.replace(usual, **facts)
    with store.draft() as draft:
        (draft / IMAGE).write_bytes(name.encode())
        return store.publish(draft, manifest) if "@" in name else store.put(draft, manifest)


def take_back(spool: Spool, node: str) -> None:
    """After a recovery, take back what a node holds, whatever it does."""
    with spool.lock():
        spool.recover()
        for holding in places.directories(spool.path, "running"):
            if places.node_of(holding) == node:
                spool.take_back(holding)
