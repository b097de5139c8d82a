"""Results that no job has left, for who reads them."""

from datetime import UTC, datetime

from construir_ftp.jobs.result import Result, encode
from construir_ftp.jobs.spool import Spool


def publish(spool: Spool, number: int, contributor: str = "alice", published: datetime | None = None) -> None:
    """Put a result into done/ at once, as a job's end does: success of job<number>."""
    job_id = f"20261129T{number:06d}Z-0000-job{number}"
    directory = spool.state("trash") / job_id
    directory.mkdir()
    result = Result(
        id=job_id,
        name=f"job{number}",
        contributor=contributor,
        status="success",
        published=published or datetime.now(UTC),
    )
    (directory / "result.json").write_bytes(encode(result))
    directory.rename(spool.state("done") / job_id)
