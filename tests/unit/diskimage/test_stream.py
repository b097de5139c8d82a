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


def reader(data: bytes) -> stream.UploadReader:
    return stream.UploadReader(io.BytesIO(data))


def unpacked(codec: str, data: bytes, memory: int = MEMORY) -> bytes:
    return b"".join(stream.Stream(codec, reader(data), memory))


@pytest.mark.long
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
@pytest.mark.parametrize("length", [1, 3, 6, 200_000])
def test_what_is_no_part_of_the_stream_is_refused_with_the_place_to_cut(codec: str, length: int) -> None:
    whole = images.pack(codec, images.noise(100_000))
    for rest in (b"\n" * length, bytes(length) + b"\n"):
        with pytest.raises(
            RefusedError, match=f"^what follows .* {codec} .*; cut it off with: truncate -s {len(whole)} "
        ):
            unpacked(codec, whole + rest)


@pytest.mark.parametrize("codec", COMPRESSED)
@pytest.mark.parametrize("length", [1, 3, 4, 512, 600_000])
def test_zeros_after_the_end_are_taken_and_counted(codec: str, length: int) -> None:
    unpacking = stream.Stream(codec, reader(images.pack(codec, b"one") + bytes(length)), MEMORY)
    assert b"".join(unpacking) == b"one"
    assert unpacking.padding_bytes == length


@pytest.mark.long
@pytest.mark.parametrize("codec", COMPRESSED)
@pytest.mark.parametrize("sizes", [(3, 5), (0, 0, 7), (300_000, 1, 300_000), (2**21, 2**21)])
def test_members_are_one_content(codec: str, sizes: tuple[int, ...]) -> None:
    parts = [images.noise(size) for size in sizes]
    packed = b"".join(images.pack(codec, part) for part in parts)
    assert unpacked(codec, packed) == b"".join(parts)


@pytest.mark.parametrize("codec", COMPRESSED)
def test_several_members_cut_anywhere_but_between_them_are_cut(codec: str) -> None:
    one, two = images.pack(codec, b"hello, " * 20), images.pack(codec, b"again, " * 20)
    for length in range(len(one) + len(two)):
        if length == len(one):
            assert unpacked(codec, one) == b"hello, " * 20
            continue
        with pytest.raises(RefusedError, match="ends early") as refused:
            unpacked(codec, (one + two)[:length])
        assert refused.value.is_cut


@pytest.mark.parametrize("codec", COMPRESSED)
@pytest.mark.parametrize("other", COMPRESSED)
def test_a_member_of_another_codec_is_refused_by_its_name(codec: str, other: str) -> None:
    if codec != other:
        with pytest.raises(RefusedError, match=f"a {other} stream follows the end of the {codec} stream; unpack both"):
            unpacked(codec, images.pack(codec, b"one") + images.pack(other, b"two"))


def test_padding_between_xz_streams_is_taken_by_fours_as_xz_has_it() -> None:
    one, two = images.pack("xz", b"one"), images.pack("xz", b"two")
    assert unpacked("xz", one + bytes(8) + two) == b"onetwo"
    with pytest.raises(RefusedError, match=r"what follows|a xz stream follows"):
        unpacked("xz", one + bytes(6) + two)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("held", [0, 4, 600_000])
def test_frames_that_hold_nothing_are_passed_over(codec: str, held: int) -> None:
    skippable = b"\x5f\x2a\x4d\x18" + held.to_bytes(4, "little") + images.noise(held)
    one, two = images.pack(codec, b"one"), images.pack(codec, b"two")
    assert unpacked(codec, skippable + one + skippable + skippable + two + skippable) == b"onetwo"
    for length in (1, 4, 7, 8 + held // 2, 7 + held):
        if length < 8 + held:
            with pytest.raises(RefusedError, match="ends early"):
                unpacked(codec, one + skippable[:length])


def test_many_small_members_take_a_time_that_grows_by_their_number() -> None:
    empty = images.pack("gzip", b"")
    assert unpacked("gzip", empty * 20_000) == b""


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_flipped_bit_is_noticed_by_the_check_sum(codec: str) -> None:
    data = images.noise(1000)
    packed = bytearray(images.pack(codec, data))
    packed[len(packed) // 2] ^= 1
    with pytest.raises(RefusedError, match="damaged"):
        unpacked(codec, bytes(packed))


def test_a_zstd_stream_that_needs_a_dictionary_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for number in range(200):
        (tmp_path / "samples" / str(number)).write_bytes(b"sample %d of what is always alike " % number * 20)
    images.run("sh", "-c", f"zstd -q --train {tmp_path}/samples/* -o {tmp_path}/dictionary")
    (tmp_path / "file").write_bytes(b"sample of what is always alike")
    images.run("zstd", "-q", "-D", tmp_path / "dictionary", tmp_path / "file", "-o", tmp_path / "packed")
    with pytest.raises(RefusedError, match="needs the dictionary it was made with; compress again without: zstd -D"):
        unpacked("zstd", (tmp_path / "packed").read_bytes())


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


@pytest.mark.long
@pytest.mark.parametrize("codec", COMPRESSED)
def test_no_block_is_larger_than_one_mebibyte_however_far_the_stream_expands(codec: str) -> None:
    upload = stream.UploadReader(io.BytesIO(images.bomb(codec, b"", 64 * MIB)))
    sizes = [len(block) for block in stream.Stream(codec, upload, MEMORY)]
    assert max(sizes) <= MIB
    assert sum(sizes) == 64 * MIB


@pytest.mark.long
@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_stream_is_read_no_further_than_it_is_asked_for(codec: str) -> None:
    upload = stream.UploadReader(io.BytesIO(images.pack(codec, images.noise(3 * MIB))))
    next(stream.Stream(codec, upload, MEMORY))
    assert upload.left_bytes > MIB


def test_the_digest_is_the_one_sha256sum_prints(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.pack("xz", images.noise(300_000)))
    with path.open("rb") as file:
        upload = stream.UploadReader(file)
        for _ in stream.Stream("xz", upload, MEMORY):
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
