"""What a file is that holds no file system where one is looked for, and the command that makes a job's image of it.

Told by the first bytes alone. In a command FILE stands for the file itself, IMAGE for what is in a compressed one.

Sources: magic(5); UEFI, 5.3 (GPT); qemu, docs/interop; AOSP, libsparse/sparse_format.h; lz4, doc/lz4_Frame_format.md.
"""

import struct
from collections.abc import Iterator

import msgspec

from construir_ftp import formats

_CONVERT = "qemu-img convert -O raw {} job.img"


class _Kind(msgspec.Struct, frozen=True):
    """What begins with `magic` at `offset`, in words, and the command; {} is where its name goes."""

    words: str
    magic: bytes
    command: str
    offset: int = 0


_KINDS = (
    _Kind("a qcow2 disk image", b"QFI\xfb", _CONVERT),
    _Kind("a VMDK disk image", b"KDMV", _CONVERT),
    _Kind("a VMDK disk image", b"COWD", _CONVERT),
    _Kind("the description of a VMDK disk image", b"# Disk DescriptorFile", _CONVERT),
    _Kind("a VDI disk image", b"\x7f\x10\xda\xbe", _CONVERT, offset=64),
    _Kind("a VHDX disk image", b"vhdxfile", _CONVERT),
    _Kind("a VHD disk image", b"conectix", _CONVERT),
    _Kind("a QED disk image", b"QED\0", _CONVERT),
    _Kind("a Parallels disk image", b"WithoutFreeSpace", _CONVERT),
    _Kind("a Parallels disk image", b"WithouFreSpacExt", _CONVERT),
    _Kind("an Android sparse image", b"\x3a\xff\x26\xed", "simg2img {} job.img"),
    _Kind("lz4 of the old format, -l", b"\x02\x21\x4c\x18", "lz4 -dc {} | lz4 -c >job.img.lz4"),
    _Kind("zstd of an old format", b"\x27\xb5\x2f\xfd", "zstd -dc {} | zstd -c >job.img.zst"),
    _Kind("a zstd dictionary", b"\x37\xa4\x30\xec", "construir pack DIR"),
    _Kind("an lzip stream", b"LZIP", "lzip -dc {} | xz -c >job.img.xz"),
    _Kind("an lzop stream", b"\x89LZO\0\r\n\x1a\n", "lzop -dc {} | lz4 -c >job.img.lz4"),
    _Kind("an lrzip stream", b"LRZI", "lrzip -dc {} | xz -c >job.img.xz"),
    _Kind("a stream of compress, .Z", b"\x1f\x9d", "gzip -dc {} | gzip -c >job.img.gz"),
    _Kind("a 7z archive", b"7z\xbc\xaf\x27\x1c", "7z x -so {} >job.img"),
)


def found(head: bytes, codec: str) -> tuple[str, str] | None:
    """What it is, in words, and a command; None where that is not known here. `head` is what is in the stream."""
    file = "FILE" if codec == "raw" else "IMAGE"
    for kind in _KINDS:
        if head.startswith(kind.magic, kind.offset):
            return kind.words, kind.command.format(file)
    if _is_lzma(head):
        return "an lzma stream of the old format", f"xz --format=lzma -dc {file} | xz -c >job.img.xz"
    if _is_zlib(head):
        return "a zlib stream", f"pigz -dc {file} | gzip -c >job.img.gz"
    if codec != "raw" and (inner := formats.of_content(head)).magic:
        tool = formats.find(codec).unpack_argv[0]
        return f"compressed twice, first by {inner.name}", f"{tool} -dc FILE >job.img{inner.suffix}"
    return _partitioned(head, file)


def _is_lzma(head: bytes) -> bool:
    """Whether these are the properties of .lzma (xz, doc/lzma-file-format.txt): usual ones, and a length or none."""
    if len(head) < 13 or head[:3] != b"\x5d\0\0":
        return False
    return head[5:13] == b"\xff" * 8 or head[10:13] == bytes(3)


def _is_zlib(head: bytes) -> bool:
    """Whether it begins as zlib streams do (RFC 1950, 2.2): deflate, a window of 32 KiB, no dictionary."""
    return head[:1] == b"\x78" and not int.from_bytes(head[:2]) % 31 and not head[1] & 0x20


# -- partition tables --------------------------------------------------------------------------------------------

_MOST_PIECE_BYTES = 2**20
_EXTENDED, _PROTECTIVE = (0x05, 0x0F, 0x85), 0xEE
_ISO = (32_769, b"CD001")


class _Partition(msgspec.Struct, frozen=True):
    """Where it is."""

    start_bytes: int
    size_bytes: int


def _partitioned(head: bytes, file: str) -> tuple[str, str] | None:
    if head.startswith(_ISO[1], _ISO[0]):
        return None  # which may have a partition table as well, to be started from
    partitions = list(_gpt(head)) or list(_mbr(head))
    if not partitions:
        return _extended(head, file)
    largest = max(partitions, key=lambda partition: partition.size_bytes)
    piece_bytes = _MOST_PIECE_BYTES
    while largest.start_bytes % piece_bytes or largest.size_bytes % piece_bytes:
        piece_bytes //= 2
    skip, count = largest.start_bytes // piece_bytes, largest.size_bytes // piece_bytes
    words = "a whole disk with one partition"
    if len(partitions) > 1:
        words = f"a whole disk with {len(partitions)} partitions, of which the largest is taken here"
    return words, f"dd if={file} of=job.img bs={piece_bytes} skip={skip} count={count}"


def _mbr(head: bytes) -> Iterator[_Partition]:
    if head[510:512] != b"\x55\xaa":
        return
    entries = [struct.unpack_from("<B3xB3xII", head, 446 + 16 * number) for number in range(4)]
    if any(status not in (0, 0x80) for status, *_ in entries):
        return  # a boot sector of something else
    for _, kind, start, count in entries:
        if kind and kind not in (*_EXTENDED, _PROTECTIVE) and start and count:
            yield _Partition(start * 512, count * 512)


def _extended(head: bytes, file: str) -> tuple[str, str] | None:
    """Where the partitions in an extended one are is told by each of them, further on."""
    if head[510:512] != b"\x55\xaa" or not any(head[446 + 4 + 16 * number] in _EXTENDED for number in range(4)):
        return None
    words = "a whole disk with its partitions in an extended one"
    return words, f"dd if={file} of=job.img bs=512 skip=START count=SECTORS, of what sfdisk -l {file} lists"


def _gpt(head: bytes) -> Iterator[_Partition]:
    for sector_bytes in (512, 4096):
        if head.startswith(b"EFI PART", sector_bytes) and len(head) >= sector_bytes + 92:
            table, count, size_bytes = struct.unpack_from("<QII", head, sector_bytes + 72)
            for number in range(min(count, 128)):
                entry = head[table * sector_bytes + number * size_bytes :][:48]
                if len(entry) == 48 and any(entry[:16]):
                    first, last = struct.unpack_from("<QQ", entry, 32)
                    if 0 < first <= last < 2**48:
                        yield _Partition(first * sector_bytes, (last + 1 - first) * sector_bytes)
