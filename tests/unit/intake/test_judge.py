import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from construir_ftp.config import GateSection
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.errors import RefusedError
from construir_ftp.intake import judge
from construir_ftp.intake.verdict import Verdict
from construir_ftp.units import Size
from tests.support import images
from tests.support.images import CODECS, COMPRESSED, KIB, MIB, TIB

LIMITS = GateSection(max_memory=Size(64 * MIB))


def judged(data: bytes, limits: GateSection = LIMITS) -> Verdict:
    return judge.judge(UploadReader(io.BytesIO(data)), limits)


def refusal(data: bytes, limits: GateSection = LIMITS) -> tuple[int, str]:
    with pytest.raises(RefusedError) as refused:
        judged(data, limits)
    return refused.value.reply, str(refused.value)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("filesystem", ["ext2", "ext3", "ext4"])
def test_every_codec_with_every_ext_is_a_job(codec: str, filesystem: str) -> None:
    upload = images.pack(codec, images.image(filesystem, 8 * MIB))
    found = judged(upload)
    assert (found.codec, found.filesystem) == (codec, filesystem)
    assert (found.upload_bytes, found.image_bytes) == (len(upload), 8 * MIB)


@pytest.mark.parametrize("codec", CODECS)
def test_a_file_longer_than_its_file_system_by_less_than_a_block_is_a_job(codec: str) -> None:
    image = images.image("ext2", 4 * MIB, "-b", "4096")
    assert judged(images.pack(codec, image + bytes(4095))).image_bytes == 4 * MIB
    assert judged(images.pack(codec, image + b"x" * 4095)).image_bytes == 4 * MIB
    assert "goes on after" in refusal(images.pack(codec, image + b"x" * 4096))[1]


@pytest.mark.parametrize("codec", CODECS)
def test_a_file_longer_than_its_file_system_by_zeros_is_a_job(codec: str) -> None:
    assert judged(images.pack(codec, images.image() + bytes(3 * MIB))).image_bytes == 4 * MIB
    for rest in (b"x" + bytes(3 * MIB), bytes(3 * MIB) + b"x", bytes(MIB) + b"x" * 2000):
        file = "FILE" if codec == "raw" else "IMAGE"
        assert refusal(images.pack(codec, images.image() + rest)) == (
            550,
            f"the image goes on after the {4 * MIB} bytes of its file system;"
            f" cut it there with: truncate -s {4 * MIB} {file}",
        )


@pytest.mark.parametrize("hiding", [b"#!/bin/sh\necho\n", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_boot_block_that_hides_the_file_system_from_libmagic_does_no_harm(codec: str, hiding: bytes) -> None:
    image = hiding + images.image("ext4", 8 * MIB)[len(hiding) :]
    assert judged(images.pack(codec, image)).filesystem == "ext4"


NO_IMAGES = {
    "text": (b"hello\n" * 1000, "ASCII text"),
    "script": (images.HELLO, "shell script"),
    "noise": (images.noise(200_000), "data"),
    "zeros": (bytes(200_000), "data"),
    "tar": (images.tar(), "tar archive"),
    "zip": (images.zipped(), "Zip archive data"),
    "squashfs": (images.squashfs(), "Squashfs filesystem"),
    "iso": (images.iso(), "ISO 9660"),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_job_is_refused_by_its_name_and_told_what_is_one(kind: str, codec: str) -> None:
    data, name = NO_IMAGES[kind]
    reply, reason = refusal(images.pack(codec, data))
    assert reply == 550
    assert reason.startswith("not a file system image (")
    assert name in reason
    assert reason.endswith("make one with: construir pack DIR")


def test_an_empty_upload_is_refused() -> None:
    assert refusal(b"") == (550, "the upload is empty; make a job with: construir pack DIR")


@pytest.mark.parametrize("codec", COMPRESSED)
def test_nothing_compressed_is_refused(codec: str) -> None:
    assert "not a file system image (empty" in refusal(images.pack(codec, b""))[1]


def test_words_of_libmagic_are_short_and_printable_whatever_they_quote() -> None:
    named = b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + "\x1b[2J\u202e\r\n".encode() * 40 + b"\0"
    _, reason = refusal(images.pack("zstd", named + images.noise(1000)))
    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) < 150


@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_upload_is_refused(codec: str) -> None:
    whole = images.pack(codec, images.image("ext4", 8 * MIB))
    for length in (100, len(whole) // 2, len(whole) - 1):
        reply, reason = refusal(whole[:length])
        assert reply == 550
        assert "cut short" in reason or "not a file system image" in reason


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_truncated_image_compressed_whole_is_refused(codec: str) -> None:
    reply, reason = refusal(images.pack(codec, images.image()[: 3 * MIB]))
    assert reply == 550
    assert reason.startswith(
        f"the image ends after {3 * MIB} of the {4 * MIB} bytes of its file system: it is cut short"
    )


@pytest.mark.parametrize("codec", CODECS)
def test_trailing_garbage_is_refused(codec: str) -> None:
    reply, reason = refusal(images.pack(codec, images.image()) + images.noise(5000))
    assert reply == 550
    assert "goes on after" in reason if codec == "raw" else "is no part of it; cut it off with: truncate" in reason


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("claim", [4 * MIB - KIB, 4 * MIB + KIB, 2 * MIB, 64 * MIB, 8 * 2**30])
def test_a_superblock_that_claims_more_or_less_than_there_is_is_refused(codec: str, claim: int) -> None:
    reply, reason = refusal(images.pack(codec, images.claiming(images.image(), claim)[:-KIB] + images.noise(KIB)))
    assert reply in (550, 552)
    assert "of its file system" in reason or "unpacks to 8.0 GiB" in reason


@pytest.mark.parametrize("codec", CODECS)
def test_a_magic_number_among_zeros_is_refused(codec: str) -> None:
    assert "superblock makes no sense" in refusal(images.pack(codec, images.only_magic()))[1]


@pytest.mark.parametrize("codec", CODECS)
def test_an_image_that_claims_a_terabyte_is_refused_by_size(codec: str) -> None:
    upload = images.pack(codec, images.claiming(images.image("ext4", 8 * MIB, "-b", "4096"), TIB))
    assert refusal(upload) == (552, "the image unpacks to 1.0 TiB; at most 16.0 GiB are accepted here")


@pytest.mark.long
@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_bomb_behind_a_small_file_system_is_not_unpacked_to_its_end(codec: str) -> None:
    bomb = images.bomb(codec, images.image() + b"more", 256 * MIB)
    watched = io.BytesIO(bomb[:-1])  # would be "cut short" if it were read that far
    with pytest.raises(RefusedError, match=f"goes on after the {4 * MIB} bytes"):
        judge.judge(UploadReader(watched), LIMITS)


@pytest.mark.long
@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_bomb_that_claims_its_size_is_refused_by_its_ratio(codec: str) -> None:
    limits = GateSection(max_ratio=20, ratio_free=Size(64 * MIB))
    bomb = images.bomb(codec, images.claiming(images.image(), 256 * MIB), 256 * MIB)
    reply, reason = refusal(bomb, limits)
    assert reply == 552
    assert reason.startswith("the image unpacks to 256.0 MiB, more than 20 times the ")


def test_an_almost_empty_image_may_exceed_the_ratio_up_to_the_free_size() -> None:
    upload = images.pack("zstd", images.image("ext2", 32 * MIB))
    assert judged(upload, GateSection(max_ratio=2, ratio_free=Size(32 * MIB))).image_bytes == 32 * MIB
    assert refusal(upload, GateSection(max_ratio=2, ratio_free=Size(32 * MIB - 1)))[0] == 552


def test_a_file_system_that_is_not_configured_is_refused() -> None:
    reply, reason = refusal(images.image("ext4", 8 * MIB), GateSection(filesystems=("ext2", "ext3")))
    assert (reply, reason) == (550, "ext4 is not accepted here; make an image of ext2, ext3")


@pytest.mark.long
@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_bomb_of_zeros_behind_a_small_file_system_is_unpacked_within_the_limits(codec: str) -> None:
    bomb = io.BytesIO(images.bomb(codec, images.image(), 256 * MIB)[:-1])
    limits = GateSection(max_image=Size(64 * MIB))
    with pytest.raises(RefusedError, match=r"zeros follow the file system beyond 64\.0 MiB"):
        judge.judge(UploadReader(bomb), limits)
    bomb.seek(0)
    with pytest.raises(RefusedError, match="more than 20 times"):
        judge.judge(UploadReader(bomb), GateSection(max_ratio=20, ratio_free=Size(64 * MIB)))


def test_a_raw_image_of_the_wrong_size_is_refused_by_its_head_alone() -> None:
    class Watched(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.most = max(self.most, self.tell())
            return data

    file = Watched(images.claiming(images.image(), 64 * MIB) + bytes(32 * MIB))
    with pytest.raises(RefusedError, match="the image ends after"):
        judge.judge(UploadReader(file), LIMITS)
    assert file.most < MIB


def judged_or_refused(data: bytes) -> None:
    try:
        assert judged(data).upload_bytes == len(data)
    except RefusedError as error:
        assert error.reply in (550, 552)
        assert str(error).isascii()
        assert str(error).isprintable()
        assert len(str(error)) < 200


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=4000))
def test_arbitrary_bytes_are_judged_or_refused(data: bytes) -> None:
    judged_or_refused(data)


@pytest.mark.long
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    codec=st.sampled_from(CODECS),
    filesystem=st.sampled_from(["ext2", "ext4"]),
    patches=st.lists(st.tuples(st.integers(1024, 2047), st.binary(min_size=1, max_size=8)), max_size=4),
    length=st.integers(0, MIB),
)
def test_a_hostile_superblock_is_judged_or_refused(
    codec: str, filesystem: str, patches: list[tuple[int, bytes]], length: int
) -> None:
    data = bytearray(images.image(filesystem, MIB))
    for place, patch in patches:
        data[place : place + len(patch)] = patch
    judged_or_refused(images.pack(codec, bytes(data[:length] if length % 3 == 0 else data)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(codec=st.sampled_from(COMPRESSED), patch=st.binary(min_size=1, max_size=16), place=st.integers(0, 3000))
def test_a_hostile_stream_is_judged_or_refused(codec: str, patch: bytes, place: int) -> None:
    data = bytearray(images.pack(codec, images.image("ext2", MIB)))
    data[place : place + len(patch)] = patch
    judged_or_refused(bytes(data))
