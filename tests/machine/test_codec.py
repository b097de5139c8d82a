import os
from pathlib import Path

import pytest

from construir_ftp import files, formats
from construir_ftp.diskimage import codec, stream
from construir_ftp.errors import CommandError, ConstruirError, UsageError
from tests.support import images, smalldisk
from tests.support.images import CODECS, COMPRESSED, MIB

TIMEOUT_S = 60.0


def some_image(path: Path, size: int = 8 * MIB) -> Path:
    """Noise, a long hole, and a little at the end."""
    images.sparse(path, images.noise(300_000), size)
    with path.open("r+b") as file:
        file.seek(size - 5)
        file.write(b"there")
    return path


@pytest.mark.parametrize("name", CODECS)
def test_a_disk_comes_back_byte_for_byte_with_its_holes(tmp_path: Path, name: str) -> None:
    image, packed, again = some_image(tmp_path / "image"), tmp_path / "packed", tmp_path / "again"
    codec.pack(name, image, packed, TIMEOUT_S)
    codec.unpack(name, packed, again, 8 * MIB, TIMEOUT_S)
    assert again.read_bytes() == image.read_bytes()
    assert files.allocated_bytes(again) < MIB


@pytest.mark.parametrize("name", CODECS)
def test_packing_is_deterministic(tmp_path: Path, name: str) -> None:
    image = some_image(tmp_path / "image")
    for packed in ("one", "two"):
        codec.pack(name, image, tmp_path / packed, TIMEOUT_S)
        os.utime(image, (0, 0))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("name", COMPRESSED)
def test_what_the_tools_pack_is_one_whole_stream(tmp_path: Path, name: str) -> None:
    image, packed = some_image(tmp_path / "image", 40 * MIB), tmp_path / "packed"
    codec.pack(name, image, packed, TIMEOUT_S)
    with packed.open("rb") as file:
        blocks = stream.Stream(name, stream.UploadReader(file), 64 * MIB)
        assert sum(map(len, blocks)) == 40 * MIB


@pytest.mark.parametrize("name", CODECS)
def test_the_rest_of_a_block_after_the_file_system_is_left_out(tmp_path: Path, name: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "image"
    packed.write_bytes(images.pack(name, images.image() + bytes(4095)))
    codec.unpack(name, packed, target, 4 * MIB, TIMEOUT_S)
    assert target.read_bytes() == images.image()


@pytest.mark.parametrize("name", CODECS)
def test_zeros_after_the_file_system_are_left_out(tmp_path: Path, name: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "image"
    packed.write_bytes(images.pack(name, images.image() + bytes(9 * MIB)))
    codec.unpack(name, packed, target, 4 * MIB, TIMEOUT_S)
    assert target.read_bytes() == images.image()


# In this order each format's stream, which is kept (images.pack), is made once.
@pytest.mark.parametrize("padding", [0, 1, 4, 100_000])
@pytest.mark.parametrize("name", COMPRESSED)
def test_members_and_the_padding_after_them_are_unpacked_whole(tmp_path: Path, name: str, padding: int) -> None:
    packed, target, image = tmp_path / "packed", tmp_path / "image", images.noise(5 * MIB)
    packed.write_bytes(images.pack(name, image[: 2 * MIB]) + images.pack(name, image[2 * MIB :]) + bytes(padding))
    codec.unpack(name, packed, target, 5 * MIB, TIMEOUT_S, padding_bytes=padding)
    assert target.read_bytes() == image


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_cut_stream_is_noticed_behind_padding_too(tmp_path: Path, name: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "image"
    packed.write_bytes(images.pack(name, images.noise(MIB))[:-1000] + bytes(10))
    with pytest.raises(ConstruirError):
        codec.unpack(name, packed, target, MIB, TIMEOUT_S, padding_bytes=10)
    assert not target.exists()


@pytest.mark.parametrize("name", CODECS)
def test_a_stream_that_is_not_the_one_admitted_leaves_no_image(tmp_path: Path, name: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "image"
    packed.write_bytes(images.pack(name, images.image()[:-4096] + images.noise(4096)))
    for size, words in ((4 * MIB - 4096, "holds more than"), (4 * MIB + 1, "holds less than")):
        with pytest.raises(ConstruirError, match=words):
            codec.unpack(name, packed, target, size, TIMEOUT_S)
        assert not target.exists()


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_tool_that_fails_is_quoted_and_leaves_no_image(tmp_path: Path, name: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "image"
    packed.write_bytes(images.pack(name, images.noise(MIB))[:-1000])
    with pytest.raises(CommandError, match=f"exit status .* from: {formats.FORMATS[name].unpack_argv[0]} "):
        codec.unpack(name, packed, target, MIB, TIMEOUT_S)
    assert not target.exists()


@pytest.mark.parametrize("name", ["bzip2", "xz"])
def test_a_tool_that_takes_too_long_is_ended(tmp_path: Path, name: str) -> None:
    image, target = images.sparse(tmp_path / "image", b"", 2**34), tmp_path / "target"
    with pytest.raises(CommandError, match=r"not done after 0\.2 s"):
        codec.pack(name, image, target, 0.2)
    assert not target.exists()


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    image, target = some_image(tmp_path / "image"), tmp_path / "target"
    target.write_bytes(b"precious")
    for name in CODECS:
        with pytest.raises(FileExistsError):
            codec.pack(name, image, target, TIMEOUT_S)
        with pytest.raises(FileExistsError):
            codec.unpack(name, image, target, 8 * MIB, TIMEOUT_S)
    assert target.read_bytes() == b"precious"


FULL = """
import errno, sys
from pathlib import Path
from construir_ftp.diskimage import codec
small, verb, name, source = sys.argv[1:]
target = Path(small) / "target"
try:
    if verb == "pack":
        codec.pack(name, Path(source), target, 60)
    else:
        codec.unpack(name, Path(source), target, 3 * 2**20, 60)
except OSError as error:
    print(errno.errorcode[error.errno], target.exists())
"""


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("verb", ["pack", "unpack"])
def test_a_full_disk_is_enospc_whatever_the_tool_would_say(tmp_path: Path, name: str, verb: str) -> None:
    source = tmp_path / "source"
    noise = images.noise(3 * MIB)
    source.write_bytes(noise if verb == "pack" else images.pack(name, noise))
    assert smalldisk.run(tmp_path / "small", MIB, FULL, verb, name, source).split() == ["ENOSPC", "False"]


def test_an_unknown_codec_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no codec is called 'rar'; choose one of raw, gzip, bzip2, xz, zstd, lz4"):
        codec.pack("rar", tmp_path / "a", tmp_path / "b", TIMEOUT_S)


def test_xz_unpacks_within_the_memory_the_gate_allows(tmp_path: Path) -> None:
    assert f"--memlimit-decompress={formats.MEMORY_BYTES}" in formats.FORMATS["xz"].unpack_argv
    packed, target = tmp_path / "packed", tmp_path / "target"
    packed.write_bytes(images.greedy_xz(images.image()))
    with pytest.raises(CommandError, match="Memory usage limit"):
        codec.unpack("xz", packed, target, 4 * MIB, TIMEOUT_S)
