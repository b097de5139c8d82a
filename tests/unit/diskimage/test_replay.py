import io

import pytest

from construir_ftp.diskimage import replay, stream
from construir_ftp.diskimage.replay import Replay
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.errors import ConstruirError
from tests.support import images
from tests.support.images import CODECS, COMPRESSED, KIB, MIB

MEMORY = 64 * MIB


def replayed(codec: str, data: bytes, head_bytes: int) -> Replay:
    upload = UploadReader(io.BytesIO(images.pack(codec, data)))
    assert sum(map(len, stream.Stream(codec, upload, MEMORY))) == len(data)
    return Replay(codec, upload, MEMORY, data[:head_bytes], len(data))


@pytest.mark.long
@pytest.mark.parametrize("codec", CODECS)
def test_any_part_is_what_it_was(codec: str) -> None:
    data = images.noise(3 * MIB)
    image = replayed(codec, data, 64 * KIB)
    for offset, size in (
        (0, 100),
        (60 * KIB, 8 * KIB),
        (MIB, MIB),
        (5 * MIB // 2, KIB),
        (100, 100),
        (2 * MIB, 2 * MIB),
    ):
        assert image.pread(size, offset) == data[offset : offset + size]


@pytest.mark.parametrize("codec", COMPRESSED)
def test_going_back_and_forth_ends_in_a_refusal(codec: str) -> None:
    image = replayed(codec, images.image("ext2", 8 * MIB), 64 * KIB)
    image.pread(KIB, 7 * MIB)
    with pytest.raises(ConstruirError, match=r"unpacked more than 4 times; send it uncompressed"):
        for _ in range(2 * replay.MOST_TIMES):
            image.pread(KIB, MIB)
            image.pread(KIB, 7 * MIB)


def test_what_is_not_compressed_may_be_read_in_any_order() -> None:
    data = images.noise(MIB)
    image = replayed("raw", data, KIB)
    for _ in range(100):
        assert image.pread(KIB, MIB // 2) == data[MIB // 2 :][:KIB]
        assert image.pread(KIB, MIB - KIB) == data[-KIB:]
