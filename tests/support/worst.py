"""Images and streams that cost a reader as much as they can. Plain functions; sizes in bytes."""

import functools
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import lz4.frame

from tests.support import images
from tests.support.images import KIB, MIB

BLOCK = KIB
_LAYOUT = ("-b", "1024", "-m", "0")
_INODE_BYTES = 128


class Canvas:
    """An image of 1 KiB blocks in which anything may be written anywhere: no check sums."""

    def __init__(self, filesystem: str = "ext2", size_bytes: int = 64 * MIB, *options: str) -> None:
        features = ("-O", "^metadata_csum,^64bit") if filesystem == "ext4" else ()
        data = images.image(filesystem, size_bytes, *_LAYOUT, "-I", str(_INODE_BYTES), *features, *options)
        self.data = bytearray(data)

    def write(self, block: int, data: bytes) -> None:
        """Put something into a block, and those after it."""
        self.data[block * BLOCK : block * BLOCK + len(data)] = data

    def inode_at(self, number: int) -> int:
        """Where an inode of the first group is."""
        (table,) = struct.unpack_from("<I", self.data, 2 * BLOCK + 8)
        return int(table * BLOCK + (number - 1) * _INODE_BYTES)

    def set_file(self, number: int, size_bytes: int, block_map: bytes, flags: int = 0) -> None:
        """Have an inode lead to other blocks."""
        at = self.inode_at(number)
        struct.pack_into("<I", self.data, at + 4, size_bytes)
        struct.pack_into("<I", self.data, at + 32, flags)
        self.data[at + 40 : at + 100] = block_map.ljust(60, b"\0")


def pointers(blocks: Iterable[int]) -> bytes:
    """A block of pointers."""
    numbers = list(blocks)
    return struct.pack(f"<{len(numbers)}I", *numbers).ljust(BLOCK, b"\0")


def entry(number: int, name: bytes, length: int) -> bytes:
    """An entry of a directory."""
    return struct.pack("<IHBB", number, length, len(name), 1).ljust(8, b"\0") + name.ljust(length - 8, b"\0")


@functools.cache
def back_and_forth(blocks: int = 16_000, content: bytes = b"") -> bytes:
    """An image whose root directory's blocks lie far apart, alternating, below a double indirect block."""
    canvas, near, far = Canvas(), 20_000, 40_000
    places = [(far if number % 2 else near) + number // 2 for number in range(blocks)]
    for place in places:
        canvas.write(place, content)
    indirect = range(30_000, 30_000 + -(-blocks // 256))
    for number, block in enumerate(indirect):
        canvas.write(block, pointers(places[number * 256 :][:256]))
    canvas.write(29_999, pointers(indirect))
    canvas.set_file(2, (12 + 256 + blocks) * BLOCK, struct.pack("<15I", *[0] * 13, 29_999, 0))
    return bytes(canvas.data)


@functools.cache
def deep_extents() -> bytes:
    """An image whose root directory has an extent tree of five levels, each of whose blocks lies before the last."""
    canvas = Canvas("ext4")
    for level in range(4, -1, -1):
        entries = [struct.pack("<IIHH", 80 * number, 50_000 - 5_000 * (5 - level), 0, 0) for number in range(80)]
        if not level:
            entries = [
                struct.pack("<IHHI", number, 1, 0, 60_000 - 30_000 * (number % 2) - number) for number in range(80)
            ]
        canvas.write(50_000 - 5_000 * (4 - level), struct.pack("<HHHHI", 0xF30A, 80, 84, level, 0) + b"".join(entries))
    root = struct.pack("<HHHHI", 0xF30A, 1, 4, 5, 0) + struct.pack("<IIHH", 0, 50_000, 0, 0)
    canvas.set_file(2, 80 * BLOCK, root, 0x80000)
    return bytes(canvas.data)


@functools.cache
def pointers_in_a_circle() -> bytes:
    """An image whose root directory's double indirect block points to itself, 256 times."""
    canvas = Canvas()
    canvas.write(30_000, pointers([30_000] * 256))
    canvas.set_file(2, 10_000 * BLOCK, struct.pack("<15I", *[0] * 13, 30_000, 0))
    return bytes(canvas.data)


@functools.cache
def names_without_end() -> bytes:
    """An image whose root directory has 12 MiB of short entries, each of whose blocks might have the name in it."""
    decoy = entry(11, b"xconstruir.toml", 24)
    block = decoy + b"".join(entry(11, b"%03d" % number, 12) for number in range(82)) + entry(11, b"z", 16)
    assert len(block) == BLOCK
    return back_and_forth(12_000, block)


@functools.cache
def text_back_and_forth() -> bytes:
    """An image whose construir.toml has its blocks in no order."""
    canvas = Canvas()
    number = 12
    for index in range(12):
        canvas.write(60_000 - 30_000 * (index % 2) + index, b"#" * (BLOCK - 1) + b"\n")
    block_map = struct.pack("<12I", *(60_000 - 30_000 * (index % 2) + index for index in range(12)))
    canvas.set_file(number, 12 * BLOCK, block_map)
    at = canvas.data.index(b"run.sh")
    # Same room, other name: run.sh's entry is the last of the root directory.
    struct.pack_into("<IHB", canvas.data, at - 8, number, int.from_bytes(canvas.data[at - 4 : at - 2], "little"), 14)
    canvas.data[at : at + 14] = b"construir.toml"
    return bytes(canvas.data)


IMAGES = {
    "a directory back and forth": back_and_forth,
    "a deep extent tree": deep_extents,
    "pointers in a circle": pointers_in_a_circle,
    "names without end": names_without_end,
    "a text back and forth": text_back_and_forth,
}


# -- streams -----------------------------------------------------------------------------------------------------


def lz4_by_bytes(data: bytes) -> bytes:
    """`data` in blocks of one byte each (LZ4 frame format: the highest bit says that a block is not compressed)."""
    header: bytes = lz4.frame.LZ4FrameCompressor().begin()
    return header + b"".join(struct.pack("<IB", 0x80000001, byte) for byte in data) + bytes(4)


def zstd_with_empty_blocks(data: bytes, empty: int) -> bytes:
    """`data` in one frame, so many empty blocks before it (RFC 8878, 3.1.1: raw blocks, the last one marked)."""
    blocks = [(len(piece) << 3).to_bytes(3, "little") + piece for piece in _pieces(data, 100 * KIB)]
    return b"\x28\xb5\x2f\xfd\x00\x50" + bytes(3) * empty + b"".join(blocks) + b"\x01\0\0"


def gzip_with_empty_blocks(data: bytes, empty: int) -> bytes:
    """`data` in one member, so many empty blocks before it (RFC 1951, 3.2.4: stored)."""
    stored = b"".join(
        struct.pack("<BHH", 0, len(piece), len(piece) ^ 0xFFFF) + piece for piece in _pieces(data, 60 * KIB)
    )
    body = b"\0\0\0\xff\xff" * empty + stored + b"\1\0\0\xff\xff"
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + body + struct.pack("<II", zlib.crc32(data), len(data))


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@functools.cache
def streams() -> dict[str, bytes]:
    """Streams of an image of a MiB that are as slow as their formats allow."""
    data = images.image("ext2", MIB)
    return {
        "lz4 by bytes": lz4_by_bytes(data),
        "zstd with empty blocks": zstd_with_empty_blocks(data, 2_000_000),
        "gzip with empty blocks": gzip_with_empty_blocks(data, 2_000_000),
        "bzip2 of noise": images.pack("bzip2", data[: 300 * KIB] + images.noise(MIB - 300 * KIB)),
        "xz of noise": images.pack("xz", data[: 300 * KIB] + images.noise(MIB - 300 * KIB)),
    }


def deep_directories(place: Path, levels: int) -> Path:
    """A directory with so many levels in it, and a file in each hundredth."""
    at = place
    for level in range(1, levels + 1):
        at /= "d"
        at.mkdir()
        if level % 100 == 0:
            (at / f"{level}.deb").write_text("x")
    return place
