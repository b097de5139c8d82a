"""The one way into the queue: an upload is checked, then admitted, or it is gone.

The gate never looks into an upload. It starts a judge, a process of its own that does, and takes
its one line for an answer; a judge that crashes, says nothing or takes too long is a refusal of this upload and
nothing else. Blocking: call it from a thread. Safe to use from several at once.
"""

import errno
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

import msgspec

from construir_ftp import jail, jobfile, verdict
from construir_ftp.config import GateSection
from construir_ftp.errors import RefusedError
from construir_ftp.jail import cell
from construir_ftp.spool import Job, Spool, Ticket
from construir_ftp.verdict import Answer, Refusal, Verdict

__all__ = ["Verdict", "admit", "check"]

Wanted = Callable[[], bool]

_log = logging.getLogger(__name__)

_ANSWER_BYTES = 64 * 1024
_QUOTED_BYTES = 400
_ASK_EVERY_S = 1.0
# What the judge needs beside its limit for decompressors, which it sets for itself.
_PYTHON_BYTES = 512 * 2**20
# From the end of a judge's output to its own end.
_EXIT_S = 5


def admit(
    spool: Spool, job: Job, name: str, contributor: str, limits: GateSection, wanted: Wanted = lambda: True
) -> Job:
    """incoming -> queue, if what was uploaded as `name` is a job: on return it survives a power cut.

    `wanted` is asked every second, and in the last moment before the job is one, whether anybody still waits for
    the verdict; if not, the upload is refused. Raises RefusedError, the reason and reply for the client, if it isn't a
    job, or if there is no room left to say so in the spool. Whatever is raised, nothing of the upload is left.
    """
    try:
        slug = jobfile.slug(name)
        found = check(job.upload, limits, wanted)
        ticket = Ticket(
            name=slug,
            filename=name,
            contributor=contributor,
            codec=found.codec,
            filesystem=found.filesystem,
            upload_bytes=found.upload_bytes,
            image_bytes=found.image_bytes,
            upload_sha256=found.upload_sha256,
            received=datetime.now(UTC),
        )
        return spool.admit(job, ticket, lambda: _require(wanted))
    except OSError as error:
        spool.delete(job)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RefusedError("no room left on the server; try again later", 452) from error
        raise
    except BaseException:
        spool.delete(job)
        raise


def check(path: Path, limits: GateSection, wanted: Wanted = lambda: True) -> Verdict:
    """What kind of job the file at `path` is; raises RefusedError if it is none.

    Takes `limits.timeout` at most. The file's content is on stable storage afterwards; its directory entry is not.
    """
    with path.open("rb") as upload:
        answer = _ask(upload, limits, wanted)
        size_bytes = os.fstat(upload.fileno()).st_size
    if isinstance(answer, Refusal):
        raise RefusedError(answer.reason, answer.reply)
    if answer.upload_bytes != size_bytes:
        raise RefusedError("the upload changed while it was being checked; send it again")
    return answer


def _ask(upload: IO[bytes], limits: GateSection, wanted: Wanted) -> Answer:
    """Run a judge on the open file. Its own reading position is the file's start, so `upload` is freshly opened."""
    argv = [sys.executable, "-I", "-m", "construir_ftp.judge", verdict.encode_limits(limits)]
    walls = cell.reader(memory_bytes=limits.max_memory + _PYTHON_BYTES, cpu_s=limits.timeout, readable=cell.python())
    with jail.spawn(walls, argv, stdin=upload, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as judge:
        try:
            said = _listen(cast(IO[bytes], judge.stdout), limits.timeout, wanted)
            status = judge.wait(_EXIT_S)
        except (TimeoutError, subprocess.TimeoutExpired) as late:
            raise RefusedError(f"checking it was not done after {limits.timeout:g} s; make it smaller") from late
    try:
        return verdict.decode_answer(said.splitlines()[-1])
    except (IndexError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        last_words = ascii(said[-_QUOTED_BYTES:].decode(errors="replace"))
        _log.warning("a judge ended with status %d and no verdict; it said %s", status, last_words)
        raise RefusedError("checking it failed; if the image is sound, tell the operator") from error


def _require(wanted: Wanted) -> None:
    if not wanted():
        raise RefusedError("the connection that sent it is gone", 426)


def _listen(output: IO[bytes], timeout_s: float, wanted: Wanted) -> bytes:
    """All a judge says until it closes its output, or too much to be an answer. Raises TimeoutError, RefusedError."""
    deadline = time.monotonic() + timeout_s
    readable = select.poll()
    readable.register(output, select.POLLIN)
    said = b""
    while len(said) <= _ANSWER_BYTES:
        left_s = deadline - time.monotonic()
        if not readable.poll(min(_ASK_EVERY_S, max(0.0, left_s)) * 1000):
            if left_s <= 0:
                raise TimeoutError
            _require(wanted)
            continue
        data = os.read(output.fileno(), _ANSWER_BYTES)
        if not data:
            break
        said += data
    return said
