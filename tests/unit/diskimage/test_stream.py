import io
import lzma
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from construir_ftp.diskimage import stream
from construir_ftp.errors import RefusedError
from tests.support import images
from tests.support.images import COMPRESSED, KIB, MIB

MEMORY = 64 * MIB


def unpacked(codec: str, data: bytes, memory: int = MEMORY) -> bytes:
    return b"".join(stream.blocks(codec, stream.UploadReader(io.BytesIO(data)), memory))


@pytest.mark.parametrize("codec", images.CODECS)
@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 64 * KIB + 1, 3 * MIB])
def test_a_whole_stream_comes_out_as_it_went_in(codec: str, size: int) -> None:
    data = images.noise(size // 2) + bytes(size - size // 2)
    assert unpacked(codec, images.pack(codec, data)) == data


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_stream_cut_anywhere_is_refused(codec: str) -> None:
    whole = images.pack(codec, b"hello, " * 20)
    for length in range(len(whole)):
        with pytest.raises(RefusedError, match="ends early"):
            unpacked(codec, whole[:length])


@pytest.mark.parametrize("codec", COMPRESSED)
@pytest.mark.parametrize("cut", [1, 64 * KIB, 200_000])
def test_a_long_stream_cut_short_is_refused(codec: str, cut: int) -> None:
    with pytest.raises(RefusedError, match="ends early"):
        unpacked(codec, images.pack(codec, images.noise(300_000))[:-cut])


@pytest.mark.parametrize("codec", COMPRESSED)
@pytest.mark.parametrize("length", [1, 200_000])
def test_bytes_after_the_end_are_refused_and_counted(codec: str, length: int) -> None:
    with pytest.raises(
        RefusedError, match=f"^{length} bytes follow the end of the {codec} stream; compress as a single"
    ):
        unpacked(codec, images.pack(codec, images.noise(100_000)) + bytes(length))


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_second_stream_after_the_first_is_refused(codec: str) -> None:
    with pytest.raises(RefusedError, match="bytes follow the end"):
        unpacked(codec, images.pack(codec, b"one") + images.pack(codec, b"two"))


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_flipped_bit_is_noticed_by_the_check_sum(codec: str) -> None:
    data = images.noise(1000)
    packed = bytearray(images.pack(codec, data))
    packed[len(packed) // 2] ^= 1
    with pytest.raises(RefusedError, match="damaged"):
        unpacked(codec, bytes(packed))


def test_a_zstd_file_of_several_frames_is_refused_with_the_cure() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    with pytest.raises(RefusedError, match="bytes follow the end of the zstd stream; compress as a single stream"):
        unpacked("zstd", skippable + images.pack("zstd", b"frame"))


def test_an_xz_stream_that_wants_too_much_memory_is_refused_with_the_cure() -> None:
    greedy = lzma.compress(b"small", preset=9)
    assert unpacked("xz", greedy, 80 * MIB) == b"small"
    with pytest.raises(RefusedError, match="more memory than is given here; compress again with xz -6"):
        unpacked("xz", greedy, 16 * MIB)


def test_an_xz_stream_beyond_what_codec_unpacks_is_refused_whatever_is_configured() -> None:
    with pytest.raises(RefusedError, match="more memory than is given here"):
        unpacked("xz", images.greedy_xz(b"small"), 2**40)


@pytest.mark.parametrize(("window_log", "memory"), [(28, 2**30), (25, 16 * MIB)])
def test_a_zstd_window_beyond_the_limit_is_refused_with_the_cure(window_log: int, memory: int) -> None:
    with pytest.raises(RefusedError, match="more memory than is given here; compress again with zstd -3"):
        unpacked("zstd", images.greedy_zstd(b"small", window_log), memory)


def test_the_largest_window_zstd_unpacks_by_itself_is_accepted() -> None:
    assert unpacked("zstd", images.greedy_zstd(b"small", 27), 512 * MIB) == b"small"


@pytest.mark.parametrize("codec", COMPRESSED)
def test_no_block_is_larger_than_one_mebibyte_however_far_the_stream_expands(codec: str) -> None:
    upload = stream.UploadReader(io.BytesIO(images.bomb(codec, b"", 64 * MIB)))
    sizes = [len(block) for block in stream.blocks(codec, upload, MEMORY)]
    assert max(sizes) <= MIB
    assert sum(sizes) == 64 * MIB


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_stream_is_read_no_further_than_it_is_asked_for(codec: str) -> None:
    upload = stream.UploadReader(io.BytesIO(images.pack(codec, images.noise(3 * MIB))))
    next(stream.blocks(codec, upload, MEMORY))
    assert upload.left_bytes > MIB


def test_the_digest_is_the_one_sha256sum_prints(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.pack("xz", images.noise(300_000)))
    with path.open("rb") as file:
        upload = stream.UploadReader(file)
        for _ in stream.blocks("xz", upload, MEMORY):
            pass
    assert images.run("sha256sum", path).split()[0] == upload.sha256()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(codec=st.sampled_from(COMPRESSED), patch=st.binary(min_size=1, max_size=40), place=st.floats(0, 1))
def test_damage_anywhere_ends_in_a_refusal_or_a_bounded_answer(codec: str, patch: bytes, place: float) -> None:
    packed = bytearray(images.pack(codec, images.noise(500) + bytes(5000)))
    start = int(place * len(packed))
    packed[start : start + len(patch)] = patch
    with suppress(RefusedError):
        assert len(unpacked(codec, bytes(packed))) < MIB
