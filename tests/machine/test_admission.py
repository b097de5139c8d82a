import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from construir_ftp.config import Config, GateSection
from construir_ftp.errors import RefusedError
from construir_ftp.intake import admission, live_check, verdict
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.live_check import LiveCheck
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers.resolver import Offer
from construir_ftp.units import Duration, Size
from tests.support import images
from tests.support.ftpclient import wait_until
from tests.support.images import CODECS, COMPRESSED, KIB, MIB, TIB
from tests.support.prison import descendants, judge_pids

LIMITS = GateSection()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def checked(path: Path, limits: GateSection = LIMITS) -> verdict.Verdict:
    with JudgePool(limits) as judges:
        return live_check.check_file(path, judges)


def refusal(path: Path, limits: GateSection = LIMITS) -> tuple[int, str]:
    with pytest.raises(RefusedError) as refused:
        checked(path, limits)
    return refused.value.reply, str(refused.value)


# -- check -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_a_job_in_every_codec_passes_with_its_digest_and_sizes(tmp_path: Path, codec: str) -> None:
    data = images.pack(codec, images.image("ext4", 8 * MIB))
    found = checked(written(tmp_path / "upload", data))
    assert found == verdict.Verdict(
        codec=codec,
        filesystem="ext4",
        upload_bytes=len(data),
        image_bytes=8 * MIB,
        upload_sha256=hashlib.sha256(data).hexdigest(),
        needs="/bin/sh",
        needed_as="interpreter",
        newest_s=found.newest_s,
    )
    assert abs(found.newest_s - time.time()) < 86400, "the image was made by these tests"


@pytest.mark.parametrize("codec", ["raw", "zstd"])
@pytest.mark.parametrize(
    ("file", "is_told"),
    [("notes", True), ("debian/control", True), ("debian/changelog", False), ("greet_1.0.dsc", False)],
)
def test_the_newest_file_is_told_unless_its_tools_know_a_date_of_their_own(
    tmp_path: Path, codec: str, file: str, is_told: bool
) -> None:
    job = images.job_directory(tmp_path / "job")
    (job / file).parent.mkdir(exist_ok=True)
    (job / file).write_bytes(b"")
    for path, changed_s in ((job / "run.sh", 1_600_000_000), (job / file, 1_700_000_000)):
        os.utime(path, (changed_s, changed_s))
    image = images.of_directory(job, tmp_path / "image").read_bytes()
    found = checked(written(tmp_path / "upload", images.pack(codec, image)))
    assert found.newest_s == (1_700_000_000 if is_told else 0)


def test_btrfs_and_xfs_pass_where_they_are_configured(tmp_path: Path) -> None:
    limits = GateSection(filesystems=("ext2", "btrfs", "xfs"))
    for filesystem in ("btrfs", "xfs"):
        path = images.sparse(tmp_path / filesystem, b"", 320 * MIB)
        images.run(f"mkfs.{filesystem}", "-q", path)
        assert checked(path, limits).filesystem == filesystem
        assert "is not accepted here" in refusal(path)[1]


def test_a_sparse_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    claiming = images.claiming(images.image("ext4", 8 * MIB, "-b", "4096"), TIB)
    path = images.sparse(tmp_path / "honest", claiming, TIB)
    assert refusal(path) == (552, "the image unpacks to 1.0 TiB; at most 16.0 GiB are accepted here")
    path = images.sparse(tmp_path / "lying", images.image() + b"more" * KIB, TIB)
    assert refusal(path)[1].startswith(f"the image goes on after the {4 * MIB} bytes of its file system")
    path = images.sparse(tmp_path / "followed.img", images.image(), TIB)
    assert refusal(path, GateSection(max_image=Size(64 * MIB))) == (
        552,
        "zeros follow the file system beyond 64.0 MiB, the most that is accepted here;"
        f" cut them off with: truncate -s {4 * MIB} followed.img",
    )


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_bomb_is_refused_within_little_memory(tmp_path: Path, codec: str) -> None:
    upload = written(tmp_path / "upload", images.bomb(codec, images.image(), 256 * MIB))
    limits = GateSection(max_memory=Size(32 * MIB), max_image=Size(64 * MIB))
    assert "zeros follow the file system beyond 64.0 MiB" in refusal(upload, limits)[1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the upload is empty"),
        (b"hello\n", "not a file system image (ASCII text)"),
        (images.noise(100_000), "not a file system image (data)"),
        (images.squashfs(), "not a file system image (Squashfs"),
        (images.iso(), "not a file system image (ISO 9660"),
        (images.pack("xz", images.image())[:-1], "the xz stream ends early"),
        (images.pack("gzip", images.image()) + b"x", "what follows the end of the gzip stream is no part"),
        (images.claiming(images.image(), 3 * MIB)[:-KIB] + images.noise(KIB), "the image goes on after"),
    ],
)
def test_the_judges_reason_reaches_the_client(tmp_path: Path, data: bytes, reason: str) -> None:
    reply, said = refusal(written(tmp_path / "upload", data))
    assert reply == 550
    assert said.startswith(reason)
    assert str(tmp_path) not in said


def test_a_check_that_takes_too_long_is_a_refusal_and_leaves_no_process(tmp_path: Path) -> None:
    path = images.sparse(tmp_path / "upload", images.claiming(images.image("ext2", 8 * MIB), 8 * 2**30), 8 * 2**30)
    reply, reason = refusal(path, GateSection(timeout=Duration(0.1)))
    assert (reply, reason) == (550, "checking it was not done after 0.1 s; make it smaller")
    assert descendants(os.getpid()) == [os.getpid()]


def test_a_stream_that_takes_more_memory_than_the_judge_has_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "upload", images.greedy_zstd(images.image(), 27))
    assert checked(path).codec == "zstd"
    assert "more memory than is given here" in refusal(path, GateSection(max_memory=Size(16 * MIB)))[1]


def test_uploads_are_checked_from_several_threads_at_once(tmp_path: Path) -> None:
    uploads = [written(tmp_path / codec, images.pack(codec, images.image())) for codec in CODECS] * 2
    with JudgePool(LIMITS) as judges, ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda path: live_check.check_file(path, judges), uploads))
    assert [found.codec for found in verdicts] == list(CODECS) * 2


def test_an_upload_that_changes_while_it_is_checked_is_refused(tmp_path: Path, judges: JudgePool) -> None:
    path = written(tmp_path / "upload", images.image())
    with LiveCheck(judges, path) as check:
        check.hurry(path.stat().st_size)
        wait_until(lambda: not judge_pids() or check.fileno() is None, "the judge has read all of it")
        path.write_bytes(images.image() + b"x")
        with pytest.raises(RefusedError, match="the upload changed while it was being checked"):
            check.conclude(path.stat().st_size - 1)


def test_limits_pass_to_the_judge_unchanged() -> None:
    limits = GateSection(filesystems=("xfs",), max_image=Size(2**50 + 1), max_ratio=7, timeout=Duration(0.25))
    assert verdict.decode_limits(verdict.encode_limits(limits)) == limits


# -- admit -----------------------------------------------------------------------------------------------


@pytest.fixture
def judges() -> Iterator[JudgePool]:
    with JudgePool(LIMITS) as judges:
        yield judges


def admit(spool: Spool, job: Job, name: str, judges: JudgePool, wanted: Callable[[], bool] = lambda: True) -> Job:
    with LiveCheck(judges, job.upload) as check:
        return admission.admit(spool, job, name, "ada", check, Offer.of(spool, Config()), wanted=wanted)


def received(spool: Spool, data: bytes) -> Job:
    job = spool.receive()
    job.upload.write_bytes(data)
    return job


def left(spool: Spool) -> list[Path]:
    """All there is in the spool."""
    return sorted(path for path in spool.path.rglob("*") if path.parent != spool.path)


@pytest.mark.parametrize("codec", CODECS)
def test_an_accepted_upload_waits_in_the_queue_with_its_ticket(spool: Spool, judges: JudgePool, codec: str) -> None:
    data = images.pack(codec, images.image("ext3", 8 * MIB))
    job = admit(spool, received(spool, data), "my-job.ext3.xz", judges)
    assert [waiting.id for waiting in spool.jobs("queue")] == [job.id]
    assert not spool.jobs("incoming")
    assert job.id.endswith("-my-job")
    record = job.record()
    assert (record.name, record.contributor, record.codec, record.filesystem) == ("my-job", "ada", codec, "ext3")
    assert (record.upload_bytes, record.image_bytes) == (len(data), 8 * MIB)
    assert record.upload_sha256 == hashlib.sha256(job.upload.read_bytes()).hexdigest()


HOSTILE = {
    "empty": b"",
    "text": b"hello\n",
    "noise": images.noise(100_000),
    "magic": images.only_magic(),
    "less": images.claiming(images.image(), 3 * MIB)[:-KIB] + images.noise(KIB),
    "more": images.claiming(images.image(), 5 * MIB),
    "squashfs": images.squashfs(),
    "iso": images.iso(),
    **{f"cut {codec}": images.pack(codec, images.image())[:-1] for codec in CODECS},
    **{f"trailing {codec}": images.pack(codec, images.image()) + images.noise(5000) for codec in CODECS},
    **{f"terabyte {codec}": images.pack(codec, images.claiming(images.image(), TIB)) for codec in CODECS},
    **{f"bomb {codec}": images.bomb(codec, images.image() + b"more", 256 * MIB) for codec in COMPRESSED},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_refused_upload_stays_what_and_where_it_was(spool: Spool, judges: JudgePool, kind: str) -> None:
    job = received(spool, HOSTILE[kind])
    with pytest.raises(RefusedError):
        admit(spool, job, "job", judges)
    assert left(spool) == [job.path, job.upload]
    assert job.upload.read_bytes() == HOSTILE[kind]
    wait_until(lambda: not judge_pids(), "the judge ends")


@pytest.mark.parametrize("name", ["../job", "a/b", ".job", "job\n", "job\0", "x" * 300, "job\u202e", ""])
def test_a_name_that_is_none_is_refused(spool: Spool, judges: JudgePool, name: str) -> None:
    job = received(spool, images.image())
    with pytest.raises(RefusedError) as refused:
        admit(spool, job, name, judges)
    assert refused.value.reply == 553
    assert left(spool) == [job.path, job.upload]


def test_an_upload_that_is_not_there_is_an_error(spool: Spool, judges: JudgePool) -> None:
    job = spool.receive()
    with pytest.raises(FileNotFoundError):
        admit(spool, job, "job", judges)
    assert left(spool) == [job.path]


def test_an_upload_that_nobody_waits_for_any_longer_can_be_admitted_another_time(
    spool: Spool, judges: JudgePool
) -> None:
    job = received(spool, images.image())
    asked: list[bool] = []

    def wanted() -> bool:
        # There while it is judged, gone in the last moment.
        asked.append(not (job.path / "job.json").exists())
        return asked[-1]

    with pytest.raises(RefusedError):
        admit(spool, job, "job", judges, wanted=wanted)
    assert asked[-1] is False
    assert left(spool) == [job.path, job.upload]
    assert admit(spool, job, "job", judges).upload.exists()


def test_jobs_are_admitted_from_several_threads_at_once(spool: Spool, judges: JudgePool) -> None:
    uploads = [images.image(), b"text", images.pack("xz", images.image()), images.noise(1000)] * 3

    def admitted(data: bytes) -> bool:
        try:
            admit(spool, received(spool, data), "job", judges)
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(admitted, uploads)) == [True, False, True, False] * 3
    assert len(spool.jobs("queue")) == len(spool.jobs("incoming")) == 6


def test_space_is_refused_where_the_file_system_cannot_grow(tmp_path: Path) -> None:
    offer = Offer.of(Spool.prepare(tmp_path / "spool"), Config())
    found = verdict.Verdict(
        codec="raw",
        filesystem="btrfs",
        upload_bytes=MIB,
        image_bytes=MIB,
        upload_sha256="0" * 64,
        construir_toml='space = "1MiB"',
    )
    with pytest.raises(RefusedError, match=r"space: only ext2, ext3 and ext4 images can grow, not btrfs"):
        admission.wishes_of(found, offer)
