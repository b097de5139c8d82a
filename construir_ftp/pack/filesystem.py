"""The file system in a job's image: made by mke2fs(8), without root and without mounting it.

All that mke2fs would make up, or the host's mke2fs.conf would say, is given: the same files make the same bytes.
"""

import os
import shutil
import stat
import sys
from pathlib import Path

import msgspec

from construir_ftp import process
from construir_ftp.diskimage import extfs, tree
from construir_ftp.errors import CommandError, ConstruirError, MachineUnavailableError
from construir_ftp.pack.staging import BLOCK_BYTES, HAS_MODES, StagedTree

_INODE_BYTES = 256
BLOCKS_PER_GROUP = 8 * BLOCK_BYTES
# A job that uses its space for files of this length on average has an inode for each.
BYTES_PER_INODE = 8_192
_TRIES = 6
_TIMEOUT_S = 2 * 3600
# No journal, no check sums; no reserved blocks: everything in the machine runs as root.
_FEATURES = "none,ext_attr,dir_index,filetype,sparse_super,large_file"
_UUID = "c0257f17-0000-4000-8000-00000000706b"
_CONFIGURATION = "[defaults]\n[fs_types]\next2 = {\n}\nfloppy = {\n}\nsmall = {\n}\nbig = {\n}\nhuge = {\n}\n"

# Where e2fsprogs is without being on everybody's PATH: Debian's sbin, Homebrew's kegs.
_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/opt/e2fsprogs/sbin", "/usr/local/opt/e2fsprogs/sbin")
_REMEDIES = {
    "linux": "apt install e2fsprogs",
    "darwin": "brew install e2fsprogs",
    "win32": "install e2fsprogs with Cygwin and put its sbin on PATH, or pack in WSL",
}


class Times(msgspec.Struct, frozen=True):
    """Those of the file system, in seconds since 1970; those of the files are the same, unless they are kept."""

    seconds: int
    are_kept: bool = False


def find_mke2fs() -> str:
    """Its full path. Raises MachineUnavailableError, saying what to install."""
    found = shutil.which("mke2fs") or shutil.which("mke2fs", path=os.pathsep.join(_PLACES))
    if found is None:
        remedy = _REMEDIES.get(sys.platform, "install e2fsprogs")
        raise MachineUnavailableError(f"packing needs mke2fs, which is not here; {remedy}")
    return found


def make(content: Path, staged: StagedTree, image: Path, space_bytes: int, growth_bytes: int, times: Times) -> None:
    """Create `image` with what is staged in `content`, all of it root's, and `space_bytes` free.

    It has inodes for `growth_bytes` more. More blocks are tried until all of it fits. Raises ConstruirError.
    """
    space_blocks = -(-space_bytes // BLOCK_BYTES)
    needed_blocks = staged.blocks + space_blocks
    inodes = staged.inodes + space_bytes // BYTES_PER_INODE + 64
    # Each group that resize2fs(8) adds has as many as those that are there.
    inodes += (
        min(growth_bytes, BLOCKS_PER_GROUP * BLOCK_BYTES) // BYTES_PER_INODE * (needed_blocks // BLOCKS_PER_GROUP + 1)
    )
    blocks = _image_blocks(needed_blocks, inodes)
    for _ in range(_TRIES):
        free_blocks = fill(content, image, blocks, inodes, times)
        if free_blocks is not None and free_blocks >= space_blocks:
            _finish(image, staged, times)
            return
        blocks = 2 * blocks if free_blocks is None else blocks + space_blocks - free_blocks + BLOCKS_PER_GROUP // 64
    raise ConstruirError(f"{content}: does not fit into an image of {blocks * BLOCK_BYTES} bytes")


def _image_blocks(content_blocks: int, inodes: int) -> int:
    """Blocks of an image that holds so much: content, inode tables and, for each group, bitmaps and a superblock."""
    blocks = content_blocks + -(-inodes * _INODE_BYTES // BLOCK_BYTES)
    groups = blocks // BLOCKS_PER_GROUP + 1
    descriptor_blocks = -(-groups * 32 // BLOCK_BYTES)
    return blocks + groups * (5 + descriptor_blocks) + 64


def fill(content: Path, image: Path, blocks: int, inodes: int, times: Times) -> int | None:
    """Make `image` with the content of a directory; its free blocks, None if that didn't fit."""
    image.unlink(missing_ok=True)
    configuration = image.with_name("mke2fs.conf")
    configuration.write_text(_CONFIGURATION)
    argv = [find_mke2fs(), "-q", "-F", "-t", "ext2", "-O", _FEATURES, "-m0", "-U", _UUID]
    argv += ["-E", f"root_owner=0:0,hash_seed={_UUID},no_copy_xattrs", "-d", str(content.resolve())]
    argv += [f"-b{BLOCK_BYTES}", f"-I{_INODE_BYTES}", f"-N{inodes}", str(image.resolve()), str(blocks)]
    dated = {**_dated(times), "MKE2FS_CONFIG": str(configuration)}
    try:
        process.capture(argv, timeout_s=_TIMEOUT_S, env=dated)
    except CommandError as error:
        if "Could not allocate" in str(error):
            return None
        raise
    with image.open("r+b") as file:
        filled = extfs.Image(file)
        # mke2fs leaves out a last group too short for its own tables.
        file.truncate(filled.ext.blocks * BLOCK_BYTES)
        return filled.ext.free_blocks


def _finish(image: Path, staged: StagedTree, times: Times) -> None:
    """What mke2fs would copy from the files' owner, system and history is settled; what it can't know is added."""
    if not HAS_MODES:
        set_modes(image, staged.modes)
    if staged.attributes:
        _set_attributes(image, staged.attributes, times)
    with image.open("r+b") as file:
        filled = extfs.Image(file)
        filled.give_to_root()
        filled.settle_times(times.seconds, modified_too=not times.are_kept)


def _set_attributes(image: Path, attributes: dict[bytes, dict[str, bytes]], times: Times) -> None:
    """By debugfs(8), which finds files by their inodes: their names may be anything."""
    with image.open("rb") as file:
        filled = extfs.Image(file)
        found = {b"": extfs.ROOT, **{path: inode.number for path, inode in tree.walk(filled, filled.inode(extfs.ROOT))}}
    commands: list[str] = []
    for path, values in attributes.items():
        for name, value in values.items():
            held = image.with_name(f"attribute{len(commands)}")
            held.write_bytes(value)
            commands.append(f'ea_set -f {held.name} <{found[path]}> "{name}"\n')
    script = image.with_name("attributes")
    script.write_text("".join(commands))
    argv = [str(Path(find_mke2fs()).with_name("debugfs")), "-w", "-f", script.name, image.name]
    # It ends with 0 whatever happens, and says its name before whatever is no complaint.
    said = process.capture(argv, timeout_s=_TIMEOUT_S, cwd=image.parent, env=_dated(times), all_of_it=True)
    for line in said.decode(errors="replace").splitlines():
        if line and not line.startswith("debugfs"):
            raise ConstruirError(f"extended attributes can't be kept: {line}")


def _dated(times: Times) -> dict[str, str]:
    return {"E2FSPROGS_FAKE_TIME": str(times.seconds)}


def set_modes(image: Path, modes: dict[bytes, int]) -> None:
    """Give each file of the image the permissions that are listed for it; a link has always all."""
    with image.open("r+b") as file:
        filled = extfs.Image(file)
        for path, inode in list(tree.walk(filled, filled.inode(extfs.ROOT))):
            if path in modes and inode.kind != stat.S_IFLNK:
                filled.set_permissions(inode, modes[path])
