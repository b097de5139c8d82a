"""The outer formats of a job's image: one row each, for everything that names, recognises, packs or unpacks one.

    raw  gzip  bzip2  xz  zstd  lz4

A row holds no code. What decodes within bounds is in stream, what encodes by libraries in pack.compression.
"""

import msgspec

from construir_ftp.errors import UsageError

# The most memory that an xz stream may ask for, whatever is configured.
MEMORY_BYTES = 2**30
# 128 MiB: the largest window zstd(1) unpacks unless told otherwise (--memory).
ZSTD_WINDOW_LOG = 27


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """An outer format.

    `suffix` is the end of its files' names, `magic` how its files begin, `package` Debian's package of its program.
    `padding_unit`: zeros may stand between two members, if there are so many or a multiple of it; 0 is never.
    `skips`: whether frames that hold nothing may stand among the others.
    `pack_argv` and `unpack_argv` read standard input and write standard output; the same disk packs to the same bytes
    every time, on any number of cores, and unpacking takes no more memory than MEMORY_BYTES. `levels` are the lowest,
    the highest and the usual level; `recompress` tells what to do about a stream that takes too much memory.
    """

    name: str
    suffix: str = ""
    magic: bytes = b""
    padding_unit: int = 0
    skips: bool = False
    package: str = ""
    pack_argv: tuple[str, ...] = ()
    unpack_argv: tuple[str, ...] = ()
    levels: tuple[int, int, int] | None = None
    recompress: str = "compress again at a lower level"


# gzip, bzip2 and lz4 never need more than 8 MiB to unpack. zstd's levels above 19 need more than is given.
FORMATS = {
    row.name: row
    for row in (
        Format(name="raw"),
        Format(
            name="gzip",
            suffix=".gz",
            magic=b"\x1f\x8b",
            package="gzip",
            pack_argv=("gzip", "-6nc"),
            unpack_argv=("gzip", "-dc"),
            levels=(1, 9, 6),
        ),
        Format(
            name="bzip2",
            suffix=".bz2",
            magic=b"BZh",
            package="bzip2",
            pack_argv=("bzip2", "-9qc"),
            unpack_argv=("bzip2", "-dqc"),
            levels=(1, 9, 9),
        ),
        Format(
            name="xz",
            suffix=".xz",
            magic=b"\xfd7zXZ\0",
            padding_unit=4,
            package="xz-utils",
            pack_argv=("xz", "-3qc", "-T0"),
            unpack_argv=("xz", "-dqc", "-T1", f"--memlimit-decompress={MEMORY_BYTES}"),
            levels=(0, 9, 3),
            recompress="compress again with xz -6",
        ),
        Format(
            name="zstd",
            suffix=".zst",
            magic=b"\x28\xb5\x2f\xfd",
            skips=True,
            package="zstd",
            pack_argv=("zstd", "-3qc", "-T0"),
            unpack_argv=("zstd", "-dqc", f"--memory={2**ZSTD_WINDOW_LOG}"),
            levels=(1, 19, 3),
            recompress="compress again with zstd -3, without --ultra and --long",
        ),
        Format(
            name="lz4",
            suffix=".lz4",
            magic=b"\x04\x22\x4d\x18",
            skips=True,
            package="lz4",
            pack_argv=("lz4", "-1qzc"),
            unpack_argv=("lz4", "-dqc"),
            levels=(0, 12, 1),
        ),
    )
}


def find(name: str) -> Format:
    """The format called `name`. Raises UsageError."""
    if name not in FORMATS:
        raise UsageError(f"no codec is called {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def of_file_name(name: str) -> Format:
    """The format whose suffix a file's name ends with; raw for any other name."""
    return next((row for row in FORMATS.values() if row.suffix and name.endswith(row.suffix)), FORMATS["raw"])


def of_content(head: bytes) -> Format:
    """The format that a file begins in, by its first bytes; raw for any other beginning.

    Frames that hold nothing are passed over, as far as `head` goes: whose they are is told by what follows.
    """
    while is_skippable("zstd", head):
        head = head[8 + int.from_bytes(head[4:8], "little") :]
    return next((row for row in FORMATS.values() if row.magic and head.startswith(row.magic)), FORMATS["raw"])


# -- members of a stream -----------------------------------------------------------------------------------------

# The longest magic number of a member.
MAGIC_BYTES = 6
# Sixteen magic numbers, of zstd and of lz4 (RFC 8878, 3.1.2; LZ4 frame format, "Skippable Frames").
_SKIPPABLE = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))


def is_skippable(name: str, head: bytes) -> bool:
    """Whether a frame of that format which holds nothing begins so."""
    return FORMATS[name].skips and head.startswith(_SKIPPABLE)


def is_member(name: str, head: bytes) -> bool:
    """Whether a member of a stream in that format begins so."""
    return is_skippable(name, head) or head.startswith(FORMATS[name].magic)


def may_become_member(name: str, head: bytes) -> bool:
    """Whether these few bytes are how a member begins, cut short."""
    begins = (FORMATS[name].magic, *(_SKIPPABLE if FORMATS[name].skips else ()))
    return any(magic.startswith(head) for magic in begins)
