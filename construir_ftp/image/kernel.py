"""A Debian kernel as QEMU boots it fastest: the plain ELF kernel out of a compressed bzImage, without its zeros.

Under emulation the kernel's own decompressor costs a quarter of a second at every boot, and copying the memory that it
clears itself as much as 60 ms.
"""

import shutil
import struct
from pathlib import Path

from construir_ftp.diskimage.codec import inflate
from construir_ftp.errors import ConstruirError

# The boot protocol's header (Documentation/arch/x86/boot.rst): offsets of its fields, little-endian.
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_SETUP_SECTORS_AT = 0x1F1
_PAYLOAD_AT = 0x248  # payload_offset, payload_length: protocol 2.08 and later
_DECOMPRESSORS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x28\xb5\x2f\xfd": "zstd",
}

# elf(5), 64 bits: where the program headers are, how many; in each its type, the segment's place and size in the file.
_HEADERS_AT, _HEADER_COUNT_AT, _HEADER_BYTES = 32, 56, 56
_PT_LOAD, _OFFSET_AT, _FILE_BYTES_AT = 1, 8, 32


def extract(packed: Path, target: Path) -> None:
    """Write to `target` the ELF kernel inside `packed`, or a copy of `packed` where it is no such file."""
    image = packed.read_bytes()
    payload = _payload(image)
    tool = next((tool for magic, tool in _DECOMPRESSORS.items() if payload.startswith(magic)), None)
    if tool is None:
        shutil.copyfile(packed, target)
        return
    target.write_bytes(_without_zeros(inflate(tool, payload)))


def _payload(image: bytes) -> bytes:
    if image[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC:
        return b""
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_AT)
    start = (image[_SETUP_SECTORS_AT] + 1) * 512 + offset
    payload = image[start : start + length]
    # All but gzip have the unpacked size appended as four bytes of our own bootloader's making
    # (scripts/Makefile.lib, size_append), which the tools would take for garbage.
    return payload if payload.startswith(b"\x1f\x8b") else payload[:-4]


def _without_zeros(kernel: bytes) -> bytes:
    """Every segment is shortened by the zeros it ends with: what the file doesn't hold of one is zero anyway (elf(5)).

    Raises ConstruirError where there are no such segments.
    """
    if not kernel.startswith(b"\x7fELF\x02\x01"):
        return kernel
    try:
        return _shortened(bytearray(kernel))
    except struct.error as error:
        raise ConstruirError("the kernel is no whole ELF file") from error


def _shortened(image: bytearray) -> bytes:
    (first,), (count,) = struct.unpack_from("<Q", image, _HEADERS_AT), struct.unpack_from("<H", image, _HEADER_COUNT_AT)
    for header in range(first, first + count * _HEADER_BYTES, _HEADER_BYTES):
        if struct.unpack_from("<I", image, header) == (_PT_LOAD,):
            (begin,) = struct.unpack_from("<Q", image, header + _OFFSET_AT)
            (size,) = struct.unpack_from("<Q", image, header + _FILE_BYTES_AT)
            struct.pack_into("<Q", image, header + _FILE_BYTES_AT, len(image[begin : begin + size].rstrip(b"\0")))
    return bytes(image)
