"""A job's construir.toml: read, bounded, and written again for the result."""

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import request
from construir_ftp.jobs.request import Terms
from tests.fuzz.targets import alone, demand_line

_TERMS = Terms(
    timeout_s=1e9, idle_timeout_s=1e9, cpus=64, memory_bytes=2**40, image_bytes=2**40, bases=("bookworm-amd64",)
)


def attempt(data: bytes) -> None:
    """What is accepted is the same once it was written and read again."""
    try:
        wanted = request.of_job(request.decode(data), "ext4")
        _TERMS.check(wanted, 2**20)
    except RefusedError as error:
        demand_line(error.as_reply())
        return
    dated = request.dated(wanted, 1_700_000_000)
    again = request.read(request.render(dated))
    assert again == dated, f"{again} was {dated}"


target = alone(attempt)
