"""The judge before uploads that are made to keep it: what it reads is bounded, whatever it says in the end."""

import io

import pytest

from construir_ftp.config import GateSection
from construir_ftp.diskimage import replay
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.errors import RefusedError
from construir_ftp.intake import judge
from construir_ftp.units import Size
from tests.support import images, worst
from tests.support.images import COMPRESSED, KIB, MIB

LIMITS = GateSection(max_memory=Size(64 * MIB))


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


def outcome(data: bytes) -> tuple[str, float]:
    """What a client is told, and how many times the upload was read for that."""
    file = Counted(data)
    try:
        judge.judge(UploadReader(file), LIMITS).require_admissible()
        said = "a job"
    except RefusedError as refused:
        said = str(refused)
    return said, file.total / len(data)


@pytest.mark.long
@pytest.mark.parametrize("kind", worst.IMAGES)
@pytest.mark.parametrize("codec", ["raw", "gzip", "zstd"])
def test_image_made_to_send_the_judge_back_and_forth_is_read_a_few_times(kind: str, codec: str) -> None:
    image = worst.IMAGES[kind]()
    data = images.pack(codec, image)
    said, times = outcome(data)
    assert times <= 2 + 2 * replay.MOST_TIMES
    assert said == "a job" or "unpacked more than 4 times" in said or said.startswith("there is no run.sh")


def test_contributor_with_34_kb_keeps_nobody() -> None:
    data = images.pack("zstd", worst.back_and_forth())
    said, times = outcome(data)
    assert len(data) < 200 * KIB
    assert said == "a job" or said.startswith("there is no run.sh")
    assert times <= 6


@pytest.mark.parametrize("kind", worst.streams())
def test_stream_as_slow_as_its_format_allows_is_read_once(kind: str) -> None:
    said, times = outcome(worst.streams()[kind])
    assert said == "a job"
    assert times <= 1 + 0.1 + 70 * KIB / len(worst.streams()[kind])


@pytest.mark.long
@pytest.mark.parametrize("codec", COMPRESSED)
def test_bomb_is_unpacked_to_the_size_that_it_announces_and_no_further(codec: str) -> None:
    bomb = images.bomb(codec, images.image("ext2", 8 * MIB) + b"more", 128 * MIB)
    said, times = outcome(bomb)
    assert said.startswith("the image goes on after the 8388608 bytes of its file system")
    assert times <= 2
