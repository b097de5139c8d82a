"""What is in a directory of an ext image: its entries, and a file's data where that is kept in the inode itself.

Names are any bytes at all, and go to the caller as they are.

Sources: Linux, Documentation/filesystems/ext4 (directory.rst, attributes.rst, inlinedata.rst).
"""

import struct
import unicodedata
from collections.abc import Iterator

from construir_ftp.errors import ConstruirError

_ATTRIBUTES_MAGIC = 0xEA020000
# Of system.data: the number of "system.", and the name after it.
_SYSTEM, _DATA = 7, b"data"
_ENTRY = struct.Struct("<BBHIII")


def entries(block: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and inode number of each in one block of a directory, but for `.` and `..`.

    Inode 0 is an unused entry, a check sum, or hides the index of a large directory. Raises ConstruirError.
    """
    start = 0
    while start < len(block):
        if len(block) - start < 8:
            raise ConstruirError("the image is damaged: a directory ends within an entry")
        number, length, name_length = struct.unpack_from("<IHB", block, start)
        if length < 8 + name_length or length % 4 or start + length > len(block):
            raise ConstruirError("the image is damaged: a directory makes no sense")
        name = block[start + 8 : start + 8 + name_length]
        if number and name not in (b".", b".."):
            yield name, number
        start += length


def folded(name: bytes) -> bytes:
    """What is left of a name for a directory that takes capital and small letters for the same (casefold).

    Two names that such a directory takes for the same have the same left; it may be that two others have too: what is
    no letter of ASCII once it is taken apart is ignored, as the kernel ignores some of that.
    """
    text = name.decode(errors="replace")
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(letter for letter in apart if " " <= letter <= "~").encode()


def data_in_inode(tail: bytes) -> bytes:
    """The attribute system.data, where a file of inline_data goes on after the 60 bytes of i_block.

    `tail` is what follows the first 128 bytes of an inode. Raises ConstruirError where there is no such attribute.
    """
    damaged = ConstruirError("the image is damaged: a file that is said to be in its inode isn't there")
    if len(tail) < 2:
        raise damaged
    attributes = tail[struct.unpack_from("<H", tail)[0] :]
    if len(attributes) < 4 or struct.unpack_from("<I", attributes)[0] != _ATTRIBUTES_MAGIC:
        raise damaged
    first, start = attributes[4:], 0
    while start + _ENTRY.size <= len(first) and first[start : start + 4] != bytes(4):
        name_length, prefix, offset, elsewhere, size_bytes, _ = _ENTRY.unpack_from(first, start)
        end_of_name = start + _ENTRY.size + name_length
        if (prefix, first[start + _ENTRY.size : end_of_name]) == (_SYSTEM, _DATA):
            if elsewhere or offset + size_bytes > len(first):
                raise damaged
            return first[offset : offset + size_bytes]
        start += -(-(_ENTRY.size + name_length) // 4) * 4
    raise damaged
