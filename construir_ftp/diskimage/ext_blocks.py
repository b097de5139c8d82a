"""Where the blocks of a file in an ext image are: its extent tree, or its map of pointers, decoded and nothing more.

No number is believed: whoever reads the blocks that are named here checks that they are in the image, and counts them.
A tree has at most 5 levels below its root and a map 3, so that nothing here goes deeper than that.

Sources: Linux, Documentation/filesystems/ext4/ifork.rst; __ext4_ext_check in fs/ext4/extents.c.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from construir_ftp.errors import ConstruirError

_EXTENT_MAGIC = 0xF30A
_EXTENT_DEPTH = 5
# Longer than that means "allocated, never written": it reads as zeros, like a hole.
_EXTENT_BLOCKS = 32_768
# Of the blocks that lead to others: every one leads to a block of the file, over so many levels at most.
_MOST_LEVELS = 5
_DIRECT = 12


class Run(NamedTuple):
    """Blocks of a file that follow each other in the image too."""

    first: int
    place: int
    blocks: int


class _Pointer(NamedTuple):
    """A block that leads to others: to those of the file from `first` on, over `level` levels of such blocks below."""

    first: int
    place: int
    level: int


_Read = Callable[[int], bytes]
_Decode = Callable[[bytes, _Pointer], list[Run | _Pointer]]


def in_order(root: bytes, *, extents: bool, read: _Read) -> Iterator[Run]:
    """The runs of a file as they follow each other in it. `root` is i_block, `read` gives a block that leads to others.

    Raises ConstruirError where they make no sense.
    """
    decode, items = _begin(root, extents)
    yield from _require_order(_below(items, decode, read))


def by_place(root: bytes, *, extents: bool, read: _Read, blocks: int) -> list[Run]:
    """The runs of the first so many blocks of a file, sorted by where they lie in the image.

    For an image in which it is dear to go back: on each level, blocks are read in the order in which they lie.
    """
    decode, items = _begin(root, extents)
    runs: list[Run] = []
    left = _MOST_LEVELS * (blocks + 1)
    for _ in range(_MOST_LEVELS + 1):
        pointers = []
        for item in items:
            if item.first >= blocks:
                continue
            left -= 1
            if left < 0:
                raise _nonsense("more leads to a file in it than the file has blocks")
            if isinstance(item, _Pointer):
                pointers.append(item)
            else:
                runs.append(item)
        pointers.sort(key=_place)
        items = _of_all(pointers, decode, read)
    return sorted(_require_order(sorted(runs)), key=_place)


def _of_all(pointers: list[_Pointer], decode: _Decode, read: _Read) -> Iterator[Run | _Pointer]:
    for pointer in pointers:
        yield from decode(read(pointer.place), pointer)


def _place(item: "Run | _Pointer") -> int:
    return item.place


def _require_order(runs: Iterable[Run]) -> Iterator[Run]:
    end = 0
    for run in runs:
        if run.first < end:
            raise _nonsense("the blocks of a file in it are in no order")
        end = run.first + run.blocks
        yield run


def _nonsense(what: str) -> ConstruirError:
    return ConstruirError(f"the image is damaged: {what}")


def _begin(root: bytes, extents: bool) -> tuple[_Decode, Iterable[Run | _Pointer]]:
    if not extents:
        return _pointers, _mapped(root)
    level = struct.unpack_from("<H", root, 6)[0]
    if level > _EXTENT_DEPTH:
        raise _nonsense("an extent tree makes no sense")
    return _extents, _extents(root, _Pointer(0, 0, level))


def _below(items: Iterable[Run | _Pointer], decode: _Decode, read: _Read) -> Iterator[Run]:
    for item in items:
        if isinstance(item, Run):
            yield item
        else:
            yield from _below(decode(read(item.place), item), decode, read)


def _extents(node: bytes, at: _Pointer) -> list[Run | _Pointer]:
    magic, used, _, level = struct.unpack_from("<HHHH", node)
    if magic != _EXTENT_MAGIC or level != at.level or 12 * (used + 1) > len(node):
        raise _nonsense("an extent tree makes no sense")
    items: list[Run | _Pointer] = []
    for entry in range(12, 12 * (used + 1), 12):
        if level:
            first, low, high = struct.unpack_from("<IIH", node, entry)
            items.append(_Pointer(first, low + (high << 32), level - 1))
        else:
            first, count, high, low = struct.unpack_from("<IHHI", node, entry)
            if not count:
                raise _nonsense("an extent in it has no blocks")
            if count <= _EXTENT_BLOCKS:
                items.append(Run(first, low + (high << 32), count))
    return items


def _mapped(root: bytes) -> list[Run | _Pointer]:
    """Twelve blocks, then one of pointers, one of pointers to those, and one more level. 0 is a hole."""
    pointers = struct.unpack("<15I", root)
    items: list[Run | _Pointer] = [*_joined(0, pointers[:_DIRECT])]
    return items + [_Pointer(-level, place, level) for level, place in enumerate(pointers[_DIRECT:]) if place]


def _pointers(node: bytes, at: _Pointer) -> list[Run | _Pointer]:
    pointers = struct.unpack(f"<{len(node) // 4}I", node)
    # One of the three roots says only which it is: how much comes before it depends on the size of a block.
    first = at.first if at.first > 0 else _DIRECT + sum(len(pointers) ** level for level in range(1, at.level + 1))
    if not at.level:
        return [*_joined(first, pointers)]
    step = len(pointers) ** at.level
    return [_Pointer(first + index * step, place, at.level - 1) for index, place in enumerate(pointers) if place]


def _joined(first: int, pointers: tuple[int, ...]) -> Iterator[Run]:
    """Pointers to blocks that follow each other, as runs; 0 is a hole."""
    start = 0
    for end in range(1, len(pointers) + 1):
        if end == len(pointers) or pointers[end] != pointers[start] + (end - start) or not pointers[start]:
            if pointers[start]:
                yield Run(first + start, pointers[start], end - start)
            start = end
