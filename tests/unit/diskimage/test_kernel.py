"""What a kernel writes into an ext image is what is read of it without mounting, whatever the features."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.diskimage import extfs, tree
from tests.support import images
from tests.support.images import KIB, MIB
from tests.support.places import PROJECT

pytestmark = pytest.mark.root("only root mounts")


# In a mount namespace of its own: a jail that somebody starts meanwhile would keep the image mounted.
IN_A_NAMESPACE = """
import json, os, subprocess, sys
from pathlib import Path
from tests.unit.diskimage import test_kernel
image, place, copy = map(Path, sys.argv[1:])
done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stderr)
test_kernel.fill(place)
os.sync()
seen = test_kernel.seen(place)
copy.write_bytes(image.read_bytes())
subprocess.run(["umount", place], check=True)
print(json.dumps({name.hex(): content.hex() for name, content in seen.items()}))
"""


def written(path: Path) -> dict[bytes, bytes]:
    """Have this machine's kernel write into an image; what it says is there. Beside it `copy` is made while it does."""
    place = path.with_name("mounted")
    place.mkdir()
    argv: list[str | Path] = [
        "unshare",
        "--mount",
        sys.executable,
        "-c",
        IN_A_NAMESPACE,
        path,
        place,
        path.with_name("copy"),
    ]
    done = subprocess.run(
        argv, env=process.environment(PYTHONPATH=str(PROJECT)), capture_output=True, text=True, check=False
    )
    if done.stderr.startswith("mount:"):
        pytest.skip(f"this kernel does not mount it: {done.stderr.strip()}")
    assert not done.returncode, done.stderr
    return {bytes.fromhex(name): bytes.fromhex(content) for name, content in json.loads(done.stdout).items()}


def fill(place: Path) -> None:
    """What builds leave: many files, long ones, some with holes, links, directories of all sizes."""
    for size in (0, 1, 59, 60, 61, 130, 131, 200, 400, 3000, 5 * KIB, 3 * MIB + 17):
        (place / f"file {size}").write_bytes(images.noise(size))
    for length in (1, 59, 60, 61, 150, 900):
        (place / f"link {length}").symlink_to("x" * length)
    for names in (1, 4, 8, 20, 1500):
        (place / f"dir {names}").mkdir()
        for number in range(names):
            (place / f"dir {names}/{number}").touch()
    with (place / "holes").open("wb") as file:
        for number in range(0, 400, 2):
            file.seek(number * 8 * KIB)
            file.write(b"piece")
        os.posix_fallocate(file.fileno(), 5 * MIB, MIB)
    (place / "construir.toml").write_text('name = "asked"\n')


def seen(place: Path) -> dict[bytes, bytes]:
    """What is at each path: a file's content, a link's target, nothing for a directory."""
    found = {}
    for directory, directories, names in os.walk(place):  # not rglob, to which a long link is an error in some versions
        for path in (Path(directory) / name for name in (*directories, *names)):
            content = os.fsencode(path.readlink()) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
            found[os.fsencode(path.relative_to(place))] = content
    return found


def read(path: Path) -> dict[bytes, bytes]:
    """The same, read without mounting."""
    with path.open("rb") as file:
        image = extfs.Image(file)
        return {name: _content(image, inode) for name, inode in tree.walk(image, image.inode(extfs.ROOT))}


def _content(image: extfs.Image, inode: extfs.Inode) -> bytes:
    if inode.kind == stat.S_IFLNK:
        return image.link_target(inode)
    if inode.kind == stat.S_IFDIR:
        return b""
    image.check(inode)
    streamed = b"".join(image.stream(inode))
    assert image.text(inode) == streamed
    return streamed


FEATURES = [
    ("-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "1024"),
    ("-O", "meta_bg,^resize_inode,^64bit", "-b", "1024", "-g", "512"),
    ("-O", "inline_data"),
    ("-O", "inline_data", "-I", "1024"),
    ("-O", "bigalloc", "-C", "16384"),
    ("-O", "^extent,^64bit", "-b", "1024"),
    ("-O", "metadata_csum,metadata_csum_seed"),
    ("-O", "^metadata_csum,uninit_bg"),
    ("-O", "ea_inode,large_dir,orphan_file"),
    ("-O", "fast_commit"),
    ("-O", "quota,project"),
    ("-O", "casefold"),
    ("-O", "sparse_super2,^resize_inode"),
]


@pytest.mark.long
@pytest.mark.parametrize("options", FEATURES, ids=" ".join)
def test_files_are_what_the_kernel_has_written(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "image"
    images.run("mke2fs", "-q", "-F", "-t", "ext4", "-N", "4000", *options, path, "64m")
    expected = written(path)
    assert read(path) == expected
    with path.open("rb") as file:
        image = extfs.Image(file)
        for name in expected:
            assert image.find(*name.split(b"/")) is not None


def test_image_that_is_copied_while_it_is_mounted_needs_recovery(tmp_path: Path) -> None:
    path, copy = tmp_path / "image", tmp_path / "copy"
    images.run("mke2fs", "-q", "-F", "-t", "ext4", path, "64m")
    expected = written(path)
    with copy.open("rb") as file:
        assert extfs.Image(file).ext.needs_recovery
    subprocess.run(["e2fsck", "-fy", copy], env=process.environment(), capture_output=True, check=False)
    with copy.open("rb") as file:
        assert not extfs.Image(file).ext.needs_recovery
    assert read(copy) == expected
