"""What a job says of itself: the name it was sent under.

A name is checked before a byte is received; nothing here opens a job.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from construir_ftp.errors import RefusedError
from construir_ftp.formats import FORMATS
from construir_ftp.jobs import portable_names

# + and ~ are in versions of Debian packages, the others in names that build tools make.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._+~@=,-]{0,127}")
# What an id keeps of a name: it is a directory, and part of addresses.
_NOT_IN_SLUGS = re.compile(r"[^A-Za-z0-9._-]")
_ARGUMENT = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9._+,=@-]{0,127}")
# What clients call a file that they will rename when it is complete: lftp .in.NAME, ncftp tmp.NAME, rclone
# NAME.partial, WinSCP NAME.filepart, others NAME.part and NAME.tmp; and whatever is hidden.
_TEMPORARY = re.compile(r"\..+|tmp\..+|.+\.(filepart|part|partial|tmp)")
# Of Debian's packages: what a source consists of (dsc(5)), beside its .changes, and what a build makes.
_DEBIAN = r"[a-z0-9][a-z0-9+.-]+_[A-Za-z0-9.+~-]+"
_PART = re.compile(rf"{_DEBIAN}(\.dsc|\.diff\.gz|(_[a-z0-9-]+)?\.buildinfo|\.tar\.(gz|bz2|lzma|xz)(\.asc)?)")
_BINARY = re.compile(rf"{_DEBIAN}_[a-z0-9-]+\.(u|d)?deb")
_OUTER = "|".join(re.escape(row.suffix) for row in FORMATS.values() if row.suffix)
_SUFFIX = re.compile(rf"({_OUTER}|\.(zstd|img|raw|ext[234]|btrfs|xfs|bin))$", re.IGNORECASE)
_SLUG_CHARACTERS = 40

# How far apart two times are whose ids differ in any case.
STEP = timedelta(microseconds=16)


def check_name(name: str) -> None:
    """Refuse (RefusedError, 553) a file name that is not 1 to 128 of [A-Za-z0-9._+~@=,-]; or a device's.

    The first is a letter, a digit, _ or -.
    """
    if not _NAME.fullmatch(name):
        raise RefusedError(
            "a job's name is 1 to 128 of A-Z a-z 0-9 . _ + ~ @ = , - and begins with a letter, digit, _ or -", 553
        )
    if why := portable_names.why_not(name.rstrip(".")):
        raise RefusedError(f"a job can't be called {name}: the name of its result {why}; rename it", 553)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is not a job yet, but will be when it is renamed."""
    return _TEMPORARY.fullmatch(name) is not None


def is_part(name: str) -> bool:
    """Whether a file of this name is part of a Debian source package, of which the .changes makes a job."""
    return _PART.fullmatch(name) is not None


def starts_nothing(name: str) -> bool:
    """Whether a file of this name is kept until another one, or another name, makes a job of it."""
    return is_temporary(name) or is_part(name)


def check_upload_name(name: str) -> None:
    """Refuse (RefusedError, 553) a name that is neither a job's nor a temporary one, which may begin with a dot.

    A Debian package, which a build makes, is refused by its name (550), so that dput goes no further.
    """
    check_name(name.removeprefix(".") if is_temporary(name) else name)
    if _BINARY.fullmatch(name):
        raise RefusedError("packages are built here; send the source alone, of: dpkg-buildpackage -S")


def in_command(name: str) -> str:
    """A name as an argument of a command that is to be pasted into a shell; FILE where that would not be safe."""
    return name if _ARGUMENT.fullmatch(name) else "FILE"


def name_of(source: Path) -> str:
    """What a job made from `source` is called: its own name, with a - for every character a name may not have."""
    name = source.resolve().name.lstrip(".")
    return _NOT_IN_SLUGS.sub("-", name)[:100] or "job"


def slug(name: str) -> str:
    """The part of an upload's name that results are called by: without its suffixes, 40 characters at most.

    A character that ids don't have is a -.
    """
    check_name(name)
    while stem := _SUFFIX.sub("", name):
        if stem == name:
            break
        name = stem
    return _NOT_IN_SLUGS.sub("-", name)[:_SLUG_CHARACTERS].strip(".-") or "job"


def new_id(name: str, now: datetime) -> str:
    """The id of a job that came at `now`, such as 20261122T104102Z-7f3a-hello: sorted by time, never parsed.

    UTC, the part of the second in 65536ths, and the slug: who sends several jobs at once has them run in their order.
    """
    fraction = now.microsecond * 0x10000 // 1_000_000
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{fraction:04x}-{slug(name)}"
