"""Is this upload a job? The only part that looks into one, while it is still being received or afterwards.

It works in a process of its own (judge_server). It needs no path, opens and writes no file and starts no program, so
that process is left nothing but its own descriptors. The outer format is told by its magic number. What the file system
is, and whether all of it is there, is for the superblock and the stream to prove. libmagic names in a refusal what was
found. So a script or an ELF header in block 0, which hides an ext4 from libmagic, does no harm, and a magic number
alone no good.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from construir_ftp import formats
from construir_ftp.config import GateSection
from construir_ftp.diskimage import extfs, other_kinds, superblock
from construir_ftp.diskimage.newest import NewestFile
from construir_ftp.diskimage.replay import Replay
from construir_ftp.diskimage.stream import Stream, UploadReader
from construir_ftp.diskimage.superblock import Volume
from construir_ftp.errors import INSTALL, ConstruirError, RefusedError
from construir_ftp.intake import program
from construir_ftp.intake.program import Need
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import request
from construir_ftp.jobs.request import Wishes

try:
    import magic
except ImportError:  # on a contributor's own machine: `inspection`
    magic = None  # type: ignore[assignment]

LIBMAGIC = magic is not None

_UNKNOWN = "of an unknown kind"
_UNNAMED = f"libmagic would say of what kind, and Python's magic is missing: {INSTALL}"
_NAMED_CHARACTERS = 60
# Of the beginning of an image so much is kept, to find construir.toml in: tables and small files are there.
_REMEMBERED_BYTES = 16 * 2**20
_MEND = "mend it with /sbin/e2fsck -fy IMAGE, and send it again"
# Of directories, for construir.toml and the program: a sound image takes less than three of the largest.
_MOST_LOOKED_BYTES = 4 * extfs.MOST_DIRECTORY_BYTES
# How long a root directory is at most in which a construir.toml that is called otherwise is looked for.
_SHORT_BYTES = 64 * 2**10
_UNREPLAYED = (
    "the image was in use when it was copied, or its machine was killed:"
    f" its journal is not replayed (needs_recovery); {_MEND}"
)
_OBJECTION_CHARACTERS = 200
_ZEROS = bytes(2**21)


def prepare() -> None:
    """Have libmagic read its database, before files can't be opened any more. Raises ConstruirError without one."""
    if not LIBMAGIC:
        raise ConstruirError("libmagic is missing, so that no upload can be judged; run: apt install libmagic1")
    _describe(b"")


def judge(upload: UploadReader, limits: GateSection) -> Verdict:
    """What kind of job `upload` is; on return every byte of it has been read once. Raises RefusedError if it is none.

    Does not wait for more than it needs: a file system announces its size in its head, and what comes after that ends
    the reading unless it is zeros. A raw image that is too short is refused by its head alone. In the cure that a
    refusal names, FILE stands for the upload.
    """
    codec = _codec(upload)
    try:
        return _judge(codec, upload, limits)
    except RefusedError as refused:
        if codec == "raw":
            raise refused.naming("IMAGE", "FILE") from refused
        raise


def _judge(codec: str, upload: UploadReader, limits: GateSection) -> Verdict:
    unpacked = Stream(codec, upload, limits.max_memory)
    begin = _take_head(unpacked)
    volume = _volume(codec, bytes(memoryview(begin)[: superblock.HEAD_BYTES]))
    _check_limits(volume, limits)
    _check_upload(codec, volume, upload, limits)
    rest, newest = _Rest(volume, limits), NewestFile()
    rest.add(begin, 0)
    newest.add(begin, 0)
    seen_bytes = len(begin)
    for block in unpacked:
        rest.add(block, seen_bytes)
        newest.add(block, seen_bytes)
        seen_bytes += len(block)
        if len(begin) < _REMEMBERED_BYTES:
            begin += block
        _check_ratio(max(volume.size_bytes, seen_bytes), upload, limits)
    _require_all(volume, seen_bytes, may_go_on=unpacked.may_go_on)
    inside = _look_inside(volume, Replay(codec, upload, limits.max_memory, begin, volume.size_bytes))
    return Verdict(
        codec=codec,
        filesystem=volume.filesystem,
        upload_bytes=upload.size_bytes,
        padding_bytes=unpacked.padding_bytes,
        image_bytes=volume.size_bytes,
        upload_sha256=upload.sha256(),
        construir_toml=inside.construir_toml,
        objection=inside.objection.replace("IMAGE", "FILE") if codec == "raw" else inside.objection,
        needs=inside.need.what if inside.need else "",
        needed_as=inside.need.role if inside.need else "",
        newest_s=0 if inside.is_debian_source else newest.seconds,
        is_beside=inside.need is not None and inside.need.is_beside,
    )


def _codec(upload: UploadReader) -> str:
    head = upload.peek(superblock.HEAD_BYTES)
    if not head:
        raise RefusedError("the upload is empty; make a job with: construir pack DIR")
    return formats.of_content(head).name


def _describe(data: bytes) -> str:
    """What libmagic calls `data`, fit for an FTP reply whatever it quotes. Never unpacks (uncompress=True forks)."""
    if not LIBMAGIC:
        return _UNNAMED
    words = _UNKNOWN
    with suppress(magic.MagicException):
        words = magic.from_buffer(data)
    printable = "".join(character if " " <= character <= "~" else "?" for character in words)
    return printable if len(printable) <= _NAMED_CHARACTERS else printable[:_NAMED_CHARACTERS] + "..."


def _take_head(unpacked: Iterator[bytes]) -> bytearray:
    """The first HEAD_BYTES of the image and what came with them, or all of a shorter one."""
    head = bytearray()
    for block in unpacked:
        head += block
        if len(head) >= superblock.HEAD_BYTES:
            break
    return head


def _volume(codec: str, head: bytes) -> Volume:
    volume = superblock.read(head)
    if volume is not None:
        return volume
    in_codec = "" if codec == "raw" else f", in {codec}"
    known = other_kinds.found(head, codec)
    if known is None:
        raise RefusedError(f"not a file system image ({_describe(head)}{in_codec}); make one with: construir pack DIR")
    words, command = known
    unpack = "unpack it, and " if "IMAGE" in command else ""
    raise RefusedError(f"not a file system image ({words}{in_codec}); {unpack}make one with: {command}")


def _check_limits(volume: Volume, limits: GateSection) -> None:
    if volume.filesystem not in limits.filesystems:
        raise RefusedError(
            f"{volume.filesystem} is not accepted here; make an image of {', '.join(limits.filesystems)}"
        )
    if volume.size_bytes > limits.max_image:
        raise RefusedError(
            f"the image unpacks to {_in_units(volume.size_bytes)};"
            f" at most {_in_units(limits.max_image)} are accepted here",
            552,
        )


def _check_upload(codec: str, volume: Volume, upload: UploadReader, limits: GateSection) -> None:
    """What the length of the upload says against it, by what is known of that."""
    if codec == "raw" and upload.is_whole:
        _require_all(volume, upload.size_bytes, may_go_on=True)
    elif codec == "raw" and volume.size_bytes > upload.most_bytes:
        raise RefusedError(
            f"the image has {_in_units(volume.size_bytes)}, and this upload may have {_in_units(upload.most_bytes)}"
            " at most; compress it, for instance with zstd -3",
            552,
        )
    _check_ratio(volume.size_bytes, upload, limits)


def _check_ratio(unpacked_bytes: int, upload: UploadReader, limits: GateSection) -> None:
    """Refuse what is too small for what it unpacks to, as soon as its length is known to stay so small."""
    if unpacked_bytes > max(limits.ratio_free, limits.max_ratio * upload.most_bytes):
        raise RefusedError(
            f"the image unpacks to {_in_units(unpacked_bytes)}, more than {limits.max_ratio} times the"
            f" {_in_units(upload.most_bytes)} uploaded; make it with less empty space",
            552,
        )


def _require_all(volume: Volume, real_bytes: int, *, may_go_on: bool) -> None:
    if real_bytes < volume.size_bytes:
        raise RefusedError(
            f"the image ends after {real_bytes} of the {volume.size_bytes} bytes of its file system:"
            " it is cut short; send it again",
            is_cut=may_go_on,
        )


class _Rest:
    """What comes after a file system: zeros, or less than one of its blocks, since a file's length need not be a
    multiple of it.
    """

    def __init__(self, volume: Volume, limits: GateSection) -> None:
        self._volume, self._limits = volume, limits
        self._is_zeros = True

    def add(self, block: bytes | bytearray, offset_bytes: int) -> None:
        """The next block of what was unpacked, and where it begins. Raises RefusedError."""
        end_bytes, size_bytes = offset_bytes + len(block), self._volume.size_bytes
        if end_bytes <= size_bytes:
            return
        rest = memoryview(block)[max(0, size_bytes - offset_bytes) :]
        self._is_zeros = self._is_zeros and rest.tobytes() == _ZEROS[: len(rest)]
        if not self._is_zeros and end_bytes >= size_bytes + self._volume.block_bytes:
            raise RefusedError(
                f"the image goes on after the {size_bytes} bytes of its file system;"
                f" cut it there with: truncate -s {size_bytes} IMAGE"
            )
        if end_bytes >= size_bytes + self._volume.block_bytes and end_bytes > self._limits.max_image:
            raise RefusedError(
                f"zeros follow the file system beyond {_in_units(self._limits.max_image)}, the most that is accepted"
                f" here; cut them off with: truncate -s {size_bytes} IMAGE",
                552,
            )


def _in_units(size_bytes: int) -> str:
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"


class _Inside(NamedTuple):
    """What was found in an image: the text of construir.toml, why it can't be a job although it is one, what its
    program needs of the machine, and whether it is a source of Debian's. Each may be missing.
    """

    construir_toml: str = ""
    objection: str = ""
    need: Need | None = None
    is_debian_source: bool = False


def _look_inside(volume: Volume, image: Replay) -> _Inside:
    """That there is no construir.toml is said only where the machine would find none either. Of btrfs and xfs nothing
    is asked.
    """
    if not volume.filesystem.startswith("ext"):
        return _Inside()
    try:
        files = extfs.Image(image)
        files.look_bytes = _MOST_LOOKED_BYTES
        if files.ext.needs_recovery:
            return _Inside(objection=_UNREPLAYED)
        text = _wishes(files)
    except ConstruirError as error:
        return _Inside(objection=_objection(str(error)))
    try:
        wanted = request.read(text)
    except RefusedError:
        return _Inside(text)  # for admission to say
    try:
        return _Inside(text, need=_program(files, wanted), is_debian_source=_is_debian_source(files))
    except RefusedError as error:
        return _Inside(text, str(error))


def _is_debian_source(files: extfs.Image) -> bool:
    """Whether the tools that build it go by a date of its own: that of its changelog (dpkg-buildpackage(1)).

    Longer directories than that of a source are not looked into.
    """
    try:
        root = files.inode(extfs.ROOT)
        named = dict(files.entries_by_place(root, b"")) if root.size_bytes <= _SHORT_BYTES else {}
        if any(name.endswith(b".dsc") for name in named):
            return True
        debian = files.named(named[b"debian"]) if b"debian" in named else None
        is_short = debian is not None and debian.size_bytes <= _SHORT_BYTES
        return debian is not None and is_short and files.child(debian, b"changelog") is not None
    except ConstruirError:
        return False  # of damage the machine tells


def _names_beside(files: extfs.Image) -> list[str]:
    """The names in the root directory, if that is a short one, and as far as they make sense."""
    root, found = files.inode(extfs.ROOT), []
    with suppress(ConstruirError):
        for name, _ in files.entries(root) if root.size_bytes <= _SHORT_BYTES else ():
            found.append(name.decode(errors="replace"))
    return found


def _program(files: extfs.Image, wanted: Wishes) -> Need | None:
    try:
        return program.look(files, wanted)
    except RefusedError:
        raise
    except ConstruirError:
        return None  # of damage the machine tells, and of names that casefold takes for others


def _objection(why: str) -> str:
    cure = f"; {_MEND}" if why.startswith("the image is damaged") else ""
    if not why.startswith(request.FILE):
        why = f"{request.FILE} can't be read: {why}"
    why = ascii(why)[1:-1]
    return why[:_OBJECTION_CHARACTERS] + cure


def _wishes(files: extfs.Image) -> str:
    """The text of construir.toml at the root; empty where there is none. Raises ConstruirError where it is no text, or
    is called otherwise.
    """
    inode = files.find(request.FILE.encode())
    if inode is None:
        request.check_absent(_names_beside(files))
        return ""
    request.check_file(mode=inode.kind, size_bytes=inode.size_bytes)
    return request.decode(files.text(inode))
