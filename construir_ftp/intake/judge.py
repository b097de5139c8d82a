"""Is this upload a job? The only part that looks into one, while it is still being received or afterwards.

It works in a process of its own (judge_server). It needs no path, opens and writes no file and starts no program, so
that process is left nothing but its own descriptors. libmagic says what the outer format is, and names in a refusal
what was found; what the file system is, and whether all of it is there, is for the superblock and the stream to
prove. So a script or an ELF header in block 0, which hides an ext4 from libmagic, does no harm, and a magic number
alone no good.
"""

import stat
from collections.abc import Iterator
from contextlib import suppress

from construir_ftp import formats
from construir_ftp.config import GateSection
from construir_ftp.diskimage import extfs, stream, superblock
from construir_ftp.diskimage.replay import Replay
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.diskimage.superblock import Volume
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import request

try:
    import magic
except ImportError:  # on a contributor's own machine: `inspection`
    magic = None  # type: ignore[assignment]

LIBMAGIC = magic is not None

_UNKNOWN = "of an unknown kind"
_NAMED_CHARACTERS = 60
# Of the beginning of an image so much is kept, to find construir.toml in: tables and small files are there.
_REMEMBERED_BYTES = 16 * 2**20
_MEND = "mend it with e2fsck -fy IMAGE, and send it again"
_UNREPLAYED = (
    "the image was in use when it was copied, or its machine was killed:"
    f" its journal is not replayed (needs_recovery); {_MEND}"
)
_OBJECTION_CHARACTERS = 200


def prepare() -> None:
    """Have libmagic read its database, before files can't be opened any more. Raises ConstruirError without one."""
    if not LIBMAGIC:
        raise ConstruirError("libmagic is missing, so that no upload can be judged; run: apt install libmagic1")
    _describe(b"")


def judge(upload: UploadReader, limits: GateSection) -> Verdict:
    """What kind of job `upload` is; on return every byte of it has been read once. Raises RefusedError if it is none.

    Reads no further than it must, and does not wait for more than it needs: a file system announces its size in
    its head, and more output than that ends the reading. A raw image of the wrong size is refused by its head alone.
    """
    codec = _codec(upload)
    unpacked = stream.blocks(codec, upload, limits.max_memory)
    begin = _take_head(unpacked)
    volume = _volume(codec, bytes(memoryview(begin)[: superblock.HEAD_BYTES]))
    _check_limits(volume, limits)
    _check_upload(codec, volume, upload, limits)
    seen_bytes, enough_bytes = len(begin), volume.size_bytes + volume.block_bytes
    while seen_bytes < enough_bytes and (block := next(unpacked, b"")):
        seen_bytes += len(block)
        if len(begin) < _REMEMBERED_BYTES:
            begin += block
        _check_ratio(volume, upload, limits)
    _check_size(codec, volume, seen_bytes)
    text, objection = _look_for_wishes(volume, Replay(codec, upload, limits.max_memory, begin, volume.size_bytes))
    return Verdict(
        codec=codec,
        filesystem=volume.filesystem,
        upload_bytes=upload.size_bytes,
        image_bytes=volume.size_bytes,
        upload_sha256=upload.sha256(),
        construir_toml=text,
        objection=objection,
    )


def _codec(upload: UploadReader) -> str:
    head = upload.peek(superblock.HEAD_BYTES)
    if not head:
        raise RefusedError("the upload is empty; make a job with: construir pack DIR")
    if not LIBMAGIC:
        return formats.of_content(head).name
    return formats.of_libmagic(_describe(head)).name


def _describe(data: bytes) -> str:
    """What libmagic calls `data`, fit for an FTP reply whatever it quotes. Never unpacks (uncompress=True forks)."""
    words = _UNKNOWN
    if LIBMAGIC:
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
    if volume is None:
        found = _describe(head) if codec == "raw" else f"{_describe(head)}, in {codec}"
        raise RefusedError(f"not a file system image ({found}); make one with: construir pack DIR")
    return volume


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
        _check_size(codec, volume, upload.size_bytes)
    elif codec == "raw" and volume.size_bytes > upload.most_bytes:
        raise RefusedError(
            f"the image has {_in_units(volume.size_bytes)}, and this upload may have {_in_units(upload.most_bytes)}"
            " at most; compress it, for instance with zstd -3",
            552,
        )
    _check_ratio(volume, upload, limits)


def _check_ratio(volume: Volume, upload: UploadReader, limits: GateSection) -> None:
    """Refuse what is too small for what it unpacks to, as soon as its length is known to stay so small."""
    if volume.size_bytes > max(limits.ratio_free, limits.max_ratio * upload.most_bytes):
        raise RefusedError(
            f"the image unpacks to {_in_units(volume.size_bytes)}, more than {limits.max_ratio} times the"
            f" {_in_units(upload.most_bytes)} uploaded; make it with less empty space",
            552,
        )


def _check_size(codec: str, volume: Volume, real_bytes: int) -> None:
    """A file system may be followed by less than one of its blocks: a file's length need not be a multiple of it."""
    if real_bytes < volume.size_bytes:
        raise RefusedError(
            f"the image ends after {real_bytes} of the {volume.size_bytes} bytes of its file system:"
            " it is cut short; send it again",
            is_cut=codec == "raw",
        )
    if real_bytes >= volume.size_bytes + volume.block_bytes:
        raise RefusedError(f"the image goes on after the {volume.size_bytes} bytes of its file system; cut it there")


def _in_units(size_bytes: int) -> str:
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"


def _look_for_wishes(volume: Volume, image: Replay) -> tuple[str, str]:
    """The text of construir.toml, and why the image can't be a job although it is one; each may be empty.

    That there is no construir.toml is said only where the machine would find none either. Of btrfs and xfs it isn't
    asked.
    """
    if not volume.filesystem.startswith("ext"):
        return "", ""
    try:
        files = extfs.Image(image)
        if files.ext.needs_recovery:
            return "", _UNREPLAYED
        return _wishes(files), ""
    except ConstruirError as error:
        return "", _objection(str(error))


def _objection(why: str) -> str:
    cure = f"; {_MEND}" if why.startswith("the image is damaged") else ""
    if not why.startswith(request.FILE):
        why = f"{request.FILE} can't be read: {why}"
    why = ascii(why)[1:-1]
    return why[:_OBJECTION_CHARACTERS] + cure


def _wishes(files: extfs.Image) -> str:
    """The text of construir.toml at the root; empty where there is none. Raises ConstruirError where it is no text."""
    inode = files.find(request.FILE.encode())
    if inode is None:
        return ""
    request.check_file(is_file=inode.kind == stat.S_IFREG, size_bytes=inode.size_bytes)
    return request.decode(files.text(inode))
