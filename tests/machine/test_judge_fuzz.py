"""The judge's own functions against hostile inputs by the thousand: an answer or a refusal, and nothing else, ever.

Every input is made from its number, so that one which fails can be made again. 1,500 in each run, 100,000 with --all.
"""

import os
import random
import socket
import struct
import threading
from pathlib import Path

import pytest

from construir_ftp.config import GateSection
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake import judge, verdict
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.verdict import Told, Verdict
from construir_ftp.jail import jail
from construir_ftp.units import Size
from tests.support import images
from tests.support.images import CODECS, KIB, MIB
from tests.support.prison import descendants

LIMITS = GateSection(
    filesystems=("ext2", "ext3", "ext4", "btrfs", "xfs"), max_image=Size(64 * MIB), max_memory=Size(32 * MIB)
)
QUICK, ALL = 1_500, 100_000
CHUNK = 500


def btrfs() -> bytes:
    """The head of a btrfs of 256 KiB, consistent as far as anyone looks."""
    data = bytearray(256 * KIB)
    struct.pack_into("<Q", data, 65536 + 0x30, 65536)
    data[65536 + 0x40 : 65536 + 0x48] = b"_BHRfS_M"
    for kind, place, number in (
        ("<Q", 0x48, 1),
        ("<Q", 0x50, 4096),
        ("<Q", 0x70, 256 * KIB),
        ("<Q", 0x88, 1),
        ("<I", 0x90, 4096),
        ("<I", 0x94, 16384),
        ("<Q", 0xC9 + 8, 256 * KIB),
    ):
        struct.pack_into(kind, data, 65536 + place, number)
    return bytes(data)


def xfs() -> bytes:
    """The head of an xfs of 256 KiB, consistent as far as anyone looks."""
    data = bytearray(256 * KIB)
    data[:4] = b"XFSB"
    for kind, place, number in (
        (">I", 4, 4096),
        (">Q", 8, 64),
        (">Q", 48, 8),
        (">Q", 56, 128),
        (">I", 84, 64),
        (">I", 88, 1),
        (">H", 102, 512),
        (">H", 104, 512),
        (">B", 120, 12),
    ):
        struct.pack_into(kind, data, place, number)
    return bytes(data)


SEEDS = {
    **{kind: images.image(kind, 512 * KIB if kind == "ext2" else 2 * MIB) for kind in ("ext2", "ext3", "ext4")},
    **{
        features: images.image("ext4", 2 * MIB, "-O", f"{features},^metadata_csum")
        for features in ("inline_data", "meta_bg,^resize_inode", "casefold", "bigalloc", "^extents,^64bit")
    },
    "btrfs": btrfs(),
    "xfs": xfs(),
    "noise": images.noise(100 * KIB),
    "magic": images.only_magic(256 * KIB),
}
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)
HEADS = (0, 1024, 65536)


def patch(chance: random.Random, data: bytearray, most_place: int) -> None:
    """One hostile change of a few bytes."""
    place = chance.randrange(max(1, min(len(data), most_place)))
    kind = chance.choice("BHIQ")
    number = chance.choice((*INTERESTING, chance.getrandbits(64))) % 2 ** (8 * struct.calcsize(kind))
    changed = struct.pack(chance.choice("<>") + kind, number)
    data[place : place + len(changed)] = changed[: len(data) - place]


def hostile_image(chance: random.Random) -> bytes:
    """A file system with lies in its superblock, most of the time."""
    data = bytearray(SEEDS[chance.choice(list(SEEDS))])
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        head = chance.choice(HEADS)
        part = bytearray(data[head : head + 512])
        patch(chance, part, 512)
        data[head : head + len(part)] = part
    # Of directories, inodes and maps, which a judge follows to construir.toml.
    for _ in range(chance.choice((0, 0, 1, 5, 20))):
        patch(chance, data, len(data))
    if chance.random() < 0.15:
        del data[chance.randrange(len(data)) :]
    if chance.random() < 0.1:
        data += chance.randbytes(chance.choice((1, 512, 5000)))
    return bytes(data)


def hostile(number: int) -> bytes:
    """The input of this number: a packed image, then damaged as a stream."""
    chance = random.Random(number)
    image = hostile_image(chance) if chance.random() < 0.6 else SEEDS[chance.choice(list(SEEDS))]
    data = bytearray(images._packed(codec, [image]) if (codec := chance.choice(CODECS)) != "raw" else image)
    for _ in range(chance.choice((0, 0, 1, 1, 3, 10))):
        patch(chance, data, chance.choice((32, 2000, len(data) or 1)))
    if chance.random() < 0.2:
        del data[chance.randrange(len(data) + 1) :]
    if chance.random() < 0.1:
        start = chance.randrange(len(data) + 1)
        data[start:start] = data[: chance.randrange(1, 3000)]
    if chance.random() < 0.1:
        data += images.pack(chance.choice(CODECS), SEEDS["xfs"])[: chance.choice((1, 100, 10**6))]
    return bytes(data)


def outcome(upload: UploadReader) -> Verdict | str:
    """The verdict, or the reason of a refusal that is fit for a client. Nothing else may come out of the judge."""
    try:
        return judge.judge(upload, LIMITS)
    except RefusedError as refused:
        assert refused.reply in (550, 552)
        assert str(refused).isascii() and str(refused).isprintable() and len(str(refused)) <= 300
        return "refused"


def growing(number: int, data: bytes, path: Path) -> Verdict | str:
    """The same, of a file that the judge is told of in pieces, which may end anywhere."""
    chance = random.Random(-number - 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, path.open("rb", buffering=0) as file:
        for size in sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(20))):
            ours.send(verdict.message(size, 2**31, is_whole=False))
        ours.send(verdict.message(len(data), 2**31, is_whole=True))
        return outcome(UploadReader(file, Told(theirs)))


def belongings() -> tuple[list[str], list[str], list[int]]:
    """Descriptors, threads and processes of ours."""
    descriptors = [entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    return sorted(descriptors), sorted(thread.name for thread in threading.enumerate()), descendants(os.getpid())


@pytest.fixture
def most(request: pytest.FixtureRequest) -> int:
    """How many inputs."""
    return ALL if request.config.getoption("--all") else QUICK


def test_judge_answers_or_refuses_whatever_it_is_given(
    tmp_path: Path, most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    judge.prepare()
    path = tmp_path / "upload"
    before = belongings()
    accepted = 0
    for number in range(most):
        data = hostile(number)
        path.write_bytes(data)
        try:
            with path.open("rb", buffering=0) as file:
                whole = outcome(UploadReader(file))
            assert growing(number, data, path) == whole, "grown or whole, the verdict is the same"
            if isinstance(whole, Verdict):
                accepted += 1
                assert whole.upload_bytes == len(data)
        except BaseException as error:
            error.add_note(f"input {number}")
            raise
        if number % CHUNK == 0:
            assert [entry.name for entry in tmp_path.iterdir()] == ["upload"]
            assert belongings() == before
    assert belongings() == before
    assert most // 50 < accepted < most // 2, "neither all nothing nor all jobs, or little is tried"
    with capsys.disabled():
        print(f"\n{most} inputs: {accepted} are jobs, {most - accepted} refused")


def test_court_is_left_as_it_was_by_hostile_uploads(tmp_path: Path, most: int) -> None:
    """A sample of the same, by judges that are processes; whether one died of it is in its answer."""
    jail.host()  # found at its first use, and kept
    before = belongings()
    path = tmp_path / "upload"
    with JudgePool(LIMITS) as judges:
        for number in range(most // 50):
            data = hostile(number)
            path.write_bytes(data)
            with judges.judge(path) as judge:
                try:
                    assert judge.conclude(len(data), lambda: True).upload_bytes == len(data)
                except RefusedError as refused:
                    assert "checking it failed" not in str(refused), f"input {number}"
                except ConstruirError as error:
                    pytest.fail(f"input {number}: {error}")
    assert belongings() == before
