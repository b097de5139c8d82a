"""A Debian kernel as QEMU boots it fastest: the plain ELF kernel out of a compressed bzImage.

Under emulation the kernel's own decompressor costs a quarter of a second at every boot.
"""

import shutil
import struct
import tempfile
from pathlib import Path

from construir_ftp import process

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
_TIMEOUT_S = 120


def extract(packed: Path, target: Path) -> None:
    """Write to `target` the ELF kernel inside `packed`, or a copy of `packed` where it is no such file."""
    image = packed.read_bytes()
    payload = _payload(image)
    tool = next((tool for magic, tool in _DECOMPRESSORS.items() if payload.startswith(magic)), None)
    if tool is None:
        shutil.copyfile(packed, target)
        return
    with tempfile.TemporaryFile() as compressed, target.open("wb") as unpacked:
        compressed.write(payload)
        compressed.seek(0)
        process.run([tool, "-dc"], stdin=compressed, stdout=unpacked, timeout_s=_TIMEOUT_S)


def _payload(image: bytes) -> bytes:
    if image[_MAGIC_AT : _MAGIC_AT + 4] != _MAGIC:
        return b""
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_AT)
    start = (image[_SETUP_SECTORS_AT] + 1) * 512 + offset
    payload = image[start : start + length]
    # All but gzip have the unpacked size appended as four bytes of our own bootloader's making
    # (scripts/Makefile.lib, size_append), which the tools would take for garbage.
    return payload if payload.startswith(b"\x1f\x8b") else payload[:-4]
