import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from construir_ftp import gate, judge, process, verdict
from construir_ftp.config import GateSection
from construir_ftp.errors import RefusedError
from construir_ftp.spool import Job, Spool
from construir_ftp.units import Duration, Size
from tests import images
from tests.images import CODECS, COMPRESSED, MIB, TIB

LIMITS = GateSection()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refusal(path: Path, limits: GateSection = LIMITS) -> tuple[int, str]:
    with pytest.raises(RefusedError) as refused:
        gate.check(path, limits)
    return refused.value.reply, str(refused.value)


def children() -> set[int]:
    """Processes, zombies included, whose parent is this one (proc(5), stat: fourth field)."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            found.add(int(stat.parent.name))
    return found


# -- check -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_a_job_in_every_codec_passes_with_its_digest_and_sizes(tmp_path: Path, codec: str) -> None:
    data = images.pack(codec, images.image("ext4", 8 * MIB))
    found = gate.check(written(tmp_path / "upload", data), LIMITS)
    assert found == verdict.Verdict(
        codec=codec,
        filesystem="ext4",
        upload_bytes=len(data),
        image_bytes=8 * MIB,
        upload_sha256=hashlib.sha256(data).hexdigest(),
    )


def test_btrfs_and_xfs_pass_where_they_are_configured(tmp_path: Path) -> None:
    limits = GateSection(filesystems=("ext2", "btrfs", "xfs"))
    for filesystem in ("btrfs", "xfs"):
        path = images.sparse(tmp_path / filesystem, b"", 320 * MIB)
        images.run(f"mkfs.{filesystem}", "-q", path)
        assert gate.check(path, limits).filesystem == filesystem
        assert "is not accepted here" in refusal(path)[1]


def test_a_sparse_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    claiming = images.claiming(images.image("ext4", 8 * MIB, "-b", "4096"), TIB)
    path = images.sparse(tmp_path / "honest", claiming, TIB)
    assert refusal(path) == (552, "the image unpacks to 1.0 TiB; at most 16.0 GiB are accepted here")
    path = images.sparse(tmp_path / "lying", images.image(), TIB)
    assert refusal(path)[1].startswith(f"the image goes on after the {4 * MIB} bytes of its file system")


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_bomb_is_refused_within_little_memory(tmp_path: Path, codec: str) -> None:
    upload = written(tmp_path / "upload", images.bomb(codec, images.image(), 256 * MIB))
    assert "goes on after" in refusal(upload, GateSection(max_memory=Size(32 * MIB)))[1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the upload is empty"),
        (b"hello\n", "not a file system image (ASCII text)"),
        (images.noise(100_000), "not a file system image (data)"),
        (images.squashfs(), "not a file system image (Squashfs"),
        (images.iso(), "not a file system image (ISO 9660"),
        (images.pack("xz", images.image())[:-1], "the xz stream ends early"),
        (images.pack("gzip", images.image()) + b"x", "1 bytes follow the end of the gzip stream"),
        (images.claiming(images.image(), 3 * MIB), "the image goes on after"),
    ],
)
def test_the_judges_reason_reaches_the_client(tmp_path: Path, data: bytes, reason: str) -> None:
    reply, said = refusal(written(tmp_path / "upload", data))
    assert reply == 550
    assert said.startswith(reason)
    assert str(tmp_path) not in said


def test_a_check_that_takes_too_long_is_a_refusal_and_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    path = images.sparse(tmp_path / "upload", images.claiming(images.image("ext2", 8 * MIB), 8 * 2**30), 8 * 2**30)
    reply, reason = refusal(path, GateSection(timeout=Duration(0.1)))
    assert (reply, reason) == (550, "checking it was not done after 0.1 s; make it smaller")
    assert children() == before


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSEGV])
def test_a_judge_that_crashes_refuses_the_upload_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: signal.Signals
) -> None:
    path = images.sparse(tmp_path / "upload", images.claiming(images.image("ext2", 8 * MIB), 8 * 2**30), 8 * 2**30)
    before = children()

    def crash() -> None:
        while not (judges := children() - before):
            time.sleep(0.001)
        os.kill(judges.pop(), ending)

    killer = threading.Thread(target=crash)
    killer.start()
    with caplog.at_level(logging.WARNING):
        assert refusal(path) == (550, "checking it failed; if the image is sound, tell the operator")
    killer.join()
    assert f"a judge ended with status {-ending} and no verdict" in caplog.text
    assert gate.check(written(tmp_path / "next", images.image()), LIMITS).filesystem == "ext2"


def test_a_stream_that_takes_more_memory_than_the_judge_has_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "upload", images.greedy_zstd(images.image(), 27))
    assert gate.check(path, LIMITS).codec == "zstd"
    assert "more memory than is given here" in refusal(path, GateSection(max_memory=Size(16 * MIB)))[1]


def test_uploads_are_checked_from_several_threads_at_once(tmp_path: Path) -> None:
    uploads = [written(tmp_path / codec, images.pack(codec, images.image())) for codec in CODECS] * 2
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda path: gate.check(path, LIMITS), uploads))
    assert [found.codec for found in verdicts] == list(CODECS) * 2


# -- the judge's process ---------------------------------------------------------------------------------


def ask(upload: Path, limits: GateSection, *wrapper: str) -> verdict.Answer:
    argv = [*wrapper, sys.executable, "-I", "-m", "construir_ftp.judge", verdict.encode_limits(limits)]
    with upload.open("rb") as file:
        done = subprocess.run(argv, stdin=file, capture_output=True, env=process.environment(), timeout=60, check=True)
    assert done.stderr == b""
    return verdict.decode_answer(done.stdout)


def test_the_judge_writes_no_file_and_starts_no_program_once_it_reads(tmp_path: Path) -> None:
    upload = written(tmp_path / "upload", images.pack("xz", images.image()))
    log = tmp_path / "calls"
    calls = "execve,clone,clone3,fork,vfork,openat,open,creat,socket,mount,read,prlimit64"
    assert isinstance(ask(upload, LIMITS, "strace", "-f", "-o", str(log), "-e", f"trace={calls}"), verdict.Verdict)
    lines = log.read_text().splitlines()
    confined = max(number for number, line in enumerate(lines) if "RLIMIT_" in line)
    assert not [line for line in lines[:confined] if "read(0," in line]
    assert any("read(0," in line for line in lines[confined:])
    forbidden = ("execve(", "clone", "fork(", "open(", "creat(", "socket(", "mount(")
    # Reading what it imports late is all that is left to see.
    assert not [line for line in lines[confined:] if any(call in line for call in forbidden)]
    assert not [line for line in lines[confined:] if "openat(" in line and ("O_WRONLY" in line or "O_RDWR" in line)]


def test_the_judge_puts_the_upload_on_stable_storage(tmp_path: Path) -> None:
    upload = written(tmp_path / "upload", images.image())
    log = tmp_path / "calls"
    ask(upload, LIMITS, "strace", "-o", str(log), "-e", "trace=fsync")
    assert "fsync(0) = 0" in " ".join(log.read_text().split())


def test_a_disk_that_fails_under_the_judge_is_not_the_uploads_fault(tmp_path: Path) -> None:
    upload = written(tmp_path / "upload", images.image())
    answer = ask(upload, LIMITS, "strace", "-o", os.devnull, "-e", "inject=fsync:error=EIO")
    assert isinstance(answer, verdict.Refusal)
    assert answer.reply == 452
    assert answer.reason.startswith("the server can't read it back (Input/output error)")


def test_the_judge_imports_nothing_it_does_not_need() -> None:
    code = "import sys, construir_ftp.judge; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"click", "rich", "pyftpdlib", "sh", "asyncio", "schedule", "argon2", "construir_ftp.spool"}
    assert heavy.isdisjoint(done.stdout.split())
    assert judge.__name__ in done.stdout.split()


def test_an_orphaned_judge_ends_by_itself(tmp_path: Path) -> None:
    path = images.sparse(tmp_path / "upload", images.claiming(images.image("ext2", 8 * MIB), 8 * 2**30), 8 * 2**30)
    limits = verdict.encode_limits(GateSection(timeout=Duration(1.0)))
    with path.open("rb") as file:
        orphan = process.spawn([sys.executable, "-I", "-m", "construir_ftp.judge", limits], stdin=file)
    assert orphan.wait(60) in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL)


def test_limits_pass_to_the_judge_unchanged() -> None:
    limits = GateSection(filesystems=("xfs",), max_image=Size(2**50 + 1), max_ratio=7, timeout=Duration(0.25))
    assert verdict.decode_limits(verdict.encode_limits(limits)) == limits


# -- admit -----------------------------------------------------------------------------------------------


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


def received(spool: Spool, data: bytes) -> Job:
    job = spool.receive()
    job.upload.write_bytes(data)
    return job


def entries(spool: Spool) -> list[Path]:
    return [path for path in spool.path.rglob("*") if path.parent != spool.path]


@pytest.mark.parametrize("codec", CODECS)
def test_an_accepted_upload_waits_in_the_queue_with_its_ticket(spool: Spool, codec: str) -> None:
    data = images.pack(codec, images.image("ext3", 8 * MIB))
    job = gate.admit(spool, received(spool, data), "my-job.ext3.xz", "ada", LIMITS)
    assert [waiting.id for waiting in spool.jobs("queue")] == [job.id]
    assert not spool.jobs("incoming")
    assert job.id.endswith("-my-job")
    ticket = job.ticket()
    assert (ticket.name, ticket.contributor, ticket.codec, ticket.filesystem) == ("my-job", "ada", codec, "ext3")
    assert (ticket.upload_bytes, ticket.image_bytes) == (len(data), 8 * MIB)
    assert ticket.upload_sha256 == hashlib.sha256(job.upload.read_bytes()).hexdigest()


HOSTILE = {
    "empty": b"",
    "text": b"hello\n",
    "noise": images.noise(100_000),
    "magic": images.only_magic(),
    "less": images.claiming(images.image(), 3 * MIB),
    "more": images.claiming(images.image(), 5 * MIB),
    "squashfs": images.squashfs(),
    "iso": images.iso(),
    **{f"cut {codec}": images.pack(codec, images.image())[:-1] for codec in CODECS},
    **{f"trailing {codec}": images.pack(codec, images.image()) + bytes(5000) for codec in CODECS},
    **{f"terabyte {codec}": images.pack(codec, images.claiming(images.image(), TIB)) for codec in CODECS},
    **{f"bomb {codec}": images.bomb(codec, images.image(), 256 * MIB) for codec in COMPRESSED},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_refused_upload_leaves_nothing_behind(spool: Spool, kind: str) -> None:
    before = children()
    with pytest.raises(RefusedError):
        gate.admit(spool, received(spool, HOSTILE[kind]), "job", "eve", LIMITS)
    assert entries(spool) == []
    assert children() == before


@pytest.mark.parametrize("name", ["../job", "a/b", ".job", "job\n", "job\0", "x" * 300, "job\u202e", ""])
def test_a_name_that_is_none_is_refused_and_leaves_nothing_behind(spool: Spool, name: str) -> None:
    with pytest.raises(RefusedError) as refused:
        gate.admit(spool, received(spool, images.image()), name, "eve", LIMITS)
    assert refused.value.reply == 553
    assert entries(spool) == []


def test_an_upload_that_is_not_there_is_an_error_and_leaves_nothing_behind(spool: Spool) -> None:
    with pytest.raises(FileNotFoundError):
        gate.admit(spool, spool.receive(), "job", "eve", LIMITS)
    assert entries(spool) == []


def test_jobs_are_admitted_from_several_threads_at_once(spool: Spool) -> None:
    uploads = [images.image(), b"text", images.pack("xz", images.image()), images.noise(1000)] * 3

    def admitted(data: bytes) -> bool:
        try:
            gate.admit(spool, received(spool, data), "job", "ada", LIMITS)
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(admitted, uploads)) == [True, False, True, False] * 3
    assert len(spool.jobs("queue")) == 6
    assert not spool.jobs("incoming")
