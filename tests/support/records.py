"""Jobs that no client has sent: what is known of them, and how they come to wait."""

from datetime import UTC, datetime, timedelta

import msgspec

from construir_ftp.jobs.spool import Job, Record, Spool

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
