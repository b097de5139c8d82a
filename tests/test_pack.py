import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from construir_ftp import codec, gate, pack
from construir_ftp.config import GateSection
from construir_ftp.court import Court
from construir_ftp.errors import CommandError, ConstruirError, RefusedError, UsageError
from tests import images, smalldisk
from tests.images import CODECS, KIB, MIB


def checked(packed: Path) -> gate.Verdict:
    """What the gate says of a packed job."""
    with Court(GateSection()) as court:
        return gate.check(packed, court)


def raw(packed: Path, codec_name: str = "zstd") -> Path:
    """The image in a packed job, unpacked beside it."""
    path = packed.with_name("raw")
    found = checked(packed)
    codec.unpack(codec_name, packed, path, found.image_bytes, 60)
    return path


def listing(directory: Path) -> dict[str, tuple[int, int, bytes | str]]:
    """Mode, time in seconds and content of everything below a directory, the directory itself left out."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in directory.rglob("*"):
        facts = path.lstat()
        if path.is_symlink():
            found[str(path.relative_to(directory))] = (0, 0, str(path.readlink()))
        else:
            content = b"" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(directory))] = (stat.S_IMODE(facts.st_mode), int(facts.st_mtime), content)
    return found


def rich_job(path: Path) -> Path:
    """A job with about everything a file system has."""
    images.job_directory(path)
    (path / "data").write_bytes(images.noise(300_000))
    (path / "data").chmod(0o640)
    (path / "secret").mkdir()
    (path / "secret" / "key").write_bytes(b"key")
    (path / "secret" / "key").chmod(0o400)
    (path / "secret").chmod(0o500)
    (path / "with space").mkdir()
    for name in ('qu"ote', "new\nline", "-rf", "\u00e4\u202e", "x" * 255):
        (path / "with space" / name).write_text(name)
    (path / "link").symlink_to("with space")
    (path / "broken").symlink_to("/nowhere/" + "x" * 200)
    (path / "again").hardlink_to(path / "data")
    os.utime(path / "data", (1_000_000_000, 1_000_000_000))
    return path


# -- pack ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_what_is_packed_passes_the_gate_and_comes_back(tmp_path: Path, name: str) -> None:
    source, packed = rich_job(tmp_path / "job"), tmp_path / "packed"
    pack.pack(source, packed, MIB, name)
    found = checked(packed)
    assert (found.codec, found.filesystem) == (name, "ext2")
    assert pack.unpack(packed, tmp_path / "back") == []
    assert listing(tmp_path / "back") == listing(source)
    assert (tmp_path / "back" / "again").samefile(tmp_path / "back" / "data")


def test_a_packed_image_is_sound_and_has_the_space_asked_for(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    for space in (0, 1, 10 * MIB, 700 * MIB):
        pack.pack(rich_job(tmp_path / f"job{space}"), packed, space)
        path = raw(packed)
        images.run("e2fsck", "-fn", path)
        with path.open("rb") as file:
            data = file.read(2048)
        assert images.field(data, 1036) * 4096 >= space
        assert images.field(data, 1040) * 8192 >= space  # free inodes
        path.unlink()


def test_everything_belongs_to_root_in_the_image_whoever_packs_it(tmp_path: Path) -> None:
    source = rich_job(tmp_path / "job")
    if os.geteuid() == 0:
        os.chown(source / "data", 70_000, 70_001)
        os.chown(source / "with space", 1000, 1000)
        os.chown(source, 1000, 1000)
    pack.pack(source, tmp_path / "packed", 0)
    path = raw(tmp_path / "packed")
    for name in ("/", "/data", "/link", '"/with space"', "/secret/key"):
        assert "User:     0   Group:     0" in images.run("debugfs", "-R", f"stat {name}", path)
    images.run("e2fsck", "-fn", path)


def test_thousands_of_small_files_fit(tmp_path: Path) -> None:
    source = images.job_directory(tmp_path / "job")
    for number in range(5000):
        (source / f"{number}").write_text(f"{number}")
    pack.pack(source, tmp_path / "packed", 0)
    pack.unpack(tmp_path / "packed", tmp_path / "back")
    assert len(list((tmp_path / "back").iterdir())) == 5001


def test_a_hole_stays_a_hole(tmp_path: Path) -> None:
    source = images.job_directory(tmp_path / "job")
    images.sparse(source / "hole", b"begin", 5 * 2**30)
    pack.pack(source, tmp_path / "packed", 0)
    assert (tmp_path / "packed").stat().st_size < 100_000
    pack.unpack(tmp_path / "packed", tmp_path / "back")
    assert (tmp_path / "back" / "hole").stat().st_size == 5 * 2**30
    assert (tmp_path / "back" / "hole").stat().st_blocks < 100


@pytest.mark.parametrize(("blocks", "inodes"), [(2000, 100), (8000, 16)])
def test_an_image_too_small_for_its_content_is_told_from_other_failures(
    tmp_path: Path, blocks: int, inodes: int
) -> None:
    source = images.job_directory(tmp_path / "job")
    (source / "data").write_bytes(images.noise(10 * MIB))
    for number in range(50):
        (source / f"{number}").touch()
    assert pack._fill(source, tmp_path / "image", blocks, inodes) is None
    with pytest.raises(CommandError, match="No such file"):
        pack._fill(tmp_path / "missing", tmp_path / "image", blocks, inodes)


def test_a_socket_is_left_out(tmp_path: Path) -> None:
    source = images.job_directory(tmp_path / "job")
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        pack.pack(source, tmp_path / "packed", 0)
    pack.unpack(tmp_path / "packed", tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["run.sh"]


def test_a_pack_leaves_nothing_but_its_target(tmp_path: Path) -> None:
    source, place = images.job_directory(tmp_path / "job"), tmp_path / "place"
    place.mkdir()
    (place / "packed").write_bytes(b"an older one")
    pack.pack(source, place / "packed", 0)
    assert [path.name for path in place.iterdir()] == ["packed"]
    assert checked(place / "packed").codec == "zstd"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("rm -r job", "job: not a directory; a job is a directory with a run.sh in it"),
        ("rm job/run.sh", "run.sh: not there, or not a file"),
        ("rm job/run.sh; mkdir job/run.sh", "run.sh: not there, or not a file"),
        ("chmod 644 job/run.sh", "run.sh: not executable; run: chmod \\+x"),
        ("rmdir place", "place: not a directory; choose another place"),
        ("rmdir place; ln -s job place", "packed: inside the directory that is packed"),
    ],
)
def test_what_is_no_job_is_not_packed(tmp_path: Path, spoil: str, words: str) -> None:
    images.job_directory(tmp_path / "job")
    (tmp_path / "place").mkdir()
    images.run("sh", "-c", f"cd '{tmp_path}'; {spoil}")
    with pytest.raises(UsageError, match=words):
        pack.pack(tmp_path / "job", tmp_path / "place" / "packed", 0)
    assert not (tmp_path / "place" / "packed").exists()


def test_an_unknown_codec_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no codec is called 'zip'"):
        pack.pack(images.job_directory(tmp_path / "job"), tmp_path / "packed", 0, "zip")


FULL = """
import sys
from pathlib import Path
from construir_ftp import errors, pack
small, source = map(Path, sys.argv[1:])
try:
    pack.pack(source, small / "packed", 0)
except errors.ConstruirError as error:
    print(error)
print(list(small.iterdir()))
"""


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    source = images.job_directory(tmp_path / "job")
    (source / "data").write_bytes(images.noise(8 * MIB))
    *said, left = smalldisk.run(tmp_path / "small", 4 * MIB, FULL, source).splitlines()
    assert len(said) == 1
    assert left == "[]"


# -- unpack ----------------------------------------------------------------------------------------------


def altered(tmp_path: Path, *commands: str, filesystem: str = "ext2") -> Path:
    """An image after these commands of debugfs(8)."""
    path = tmp_path / "image"
    path.write_bytes(images.image(filesystem, 8 * MIB))
    for command in commands:
        images.run("debugfs", "-w", "-R", command, path)
    return path


def renamed(path: Path, names: dict[bytes, bytes]) -> Path:
    """An image in whose directories names were replaced by others of the same length."""
    data = path.read_bytes()
    for old, new in names.items():
        assert data.count(old) == 1
        assert len(old) == len(new)
        data = data.replace(old, new)
    path.write_bytes(data)
    return path


def refused(path: Path, directory: Path, words: str) -> None:
    with pytest.raises(ConstruirError, match=words):
        pack.unpack(path, directory)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("name", [b"../escaped", b"/tmp/evil1", b"a/b/c/d/e/"])
def test_a_name_that_leads_out_of_the_directory_is_never_followed(tmp_path: Path, name: bytes) -> None:
    path = renamed(altered(tmp_path, "write /etc/passwd XXXXXXXXXX"), {b"XXXXXXXXXX": name})
    refused(path, tmp_path / "back", "a file in it can't be called")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["back", "image"]


def test_two_entries_of_one_name_never_write_through_a_symbolic_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    image = altered(tmp_path, f"symlink AAAAAAAA {victim}", "write /etc/passwd BBBBBBBB")
    refused(renamed(image, {b"BBBBBBBB": b"AAAAAAAA"}), tmp_path / "back", "a file in it can't be called 'AAAAAAAA'")
    assert victim.read_text() == "precious"


def test_a_symbolic_link_is_made_but_never_descended_into(tmp_path: Path) -> None:
    image = altered(tmp_path, "symlink AAAAAAAA ..", "mkdir BBBBBBBB", "write /etc/passwd BBBBBBBB/escaped")
    refused(renamed(image, {b"BBBBBBBB": b"AAAAAAAA"}), tmp_path / "back", "a file in it can't be called")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["back", "image"]


@pytest.mark.parametrize("commands", [("mkdir a", "link a a/loop"), ("mkdir a", "mkdir a/b", "link a a/b/loop")])
def test_directories_that_run_in_circles_end_in_an_error(tmp_path: Path, commands: tuple[str, ...]) -> None:
    refused(altered(tmp_path, *commands), tmp_path / "back", "a directory in it is in two places")


def test_directories_nested_without_end_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("mkdir d\ncd d\n" * 600)
    image = altered(tmp_path)
    images.run("debugfs", "-w", "-f", tmp_path / "script", image)
    refused(image, tmp_path / "back", "nested more than 500 deep")


def test_files_that_share_their_blocks_do_not_fill_the_disk(tmp_path: Path) -> None:
    path = altered(tmp_path)
    data = bytearray(path.read_bytes())
    # run.sh: a block of pointers, all to one block of pointers, all to one block: 64 MiB out of an image of 8.
    data[3000 * KIB : 3001 * KIB] = struct.pack("<256I", *[3001] * 256)
    data[3001 * KIB : 3002 * KIB] = struct.pack("<256I", *[3002] * 256)
    inode = images.field(bytes(data), 2048 + 8) * KIB + 11 * images.field(bytes(data), 1112, "<H")
    assert images.field(bytes(data), inode + 4) == len(images.HELLO)
    struct.pack_into("<I", data, inode + 4, 64 * MIB)
    struct.pack_into("<I", data, inode + 40 + 13 * 4, 3000)
    path.write_bytes(data)
    refused(path, tmp_path / "back", "share their blocks")


def test_set_user_id_bits_do_not_come_out(tmp_path: Path) -> None:
    pack.unpack(altered(tmp_path, "set_inode_field run.sh mode 0107755"), tmp_path / "back")
    assert stat.S_IMODE((tmp_path / "back" / "run.sh").stat().st_mode) == 0o755


def test_devices_and_pipes_are_left_out_and_told(tmp_path: Path) -> None:
    image = altered(tmp_path, "mknod disk b 8 0", "mknod null c 1 3", "mknod pipe p")
    left_out = pack.unpack(image, tmp_path / "back")
    assert {path.name for path in left_out} == {"disk", "null", "pipe"}
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["run.sh"]


def test_what_is_unpacked_belongs_to_whoever_unpacks_it(tmp_path: Path) -> None:
    pack.unpack(altered(tmp_path, "set_inode_field run.sh uid 12345"), tmp_path / "back")
    assert (tmp_path / "back" / "run.sh").stat().st_uid == os.geteuid()


def test_an_image_of_a_machine_that_was_switched_off_is_mended_first(tmp_path: Path) -> None:
    image = altered(tmp_path, "set_super_value state 0", "clri run.sh", filesystem="ext4")
    pack.unpack(image, tmp_path / "back")
    assert not (tmp_path / "back" / "run.sh").exists()


def test_a_journal_is_replayed_before_anything_is_read(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(images.image("ext4", 16 * MIB, "-O", "^64bit,^metadata_csum"))
    inode = images.run("debugfs", "-R", "stat run.sh", image)
    block = int(inode.split("EXTENTS:")[1].split("):")[1].split()[0])
    (tmp_path / "new").write_bytes(b"#!/bin/sh\necho replayed\n".ljust(1024, b"\n"))
    script = f"jo\njw -b {block} {tmp_path / 'new'}\njc\n"
    (tmp_path / "script").write_text(script)
    images.run("debugfs", "-w", "-f", tmp_path / "script", image)
    pack.unpack(image, tmp_path / "back")
    assert b"replayed" in (tmp_path / "back" / "run.sh").read_bytes()


def test_a_directory_in_use_is_not_unpacked_into(tmp_path: Path) -> None:
    image = altered(tmp_path)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").touch()
    for directory in (tmp_path / "back", image):
        with pytest.raises(UsageError, match="not empty; choose a new directory"):
            pack.unpack(image, directory)


def test_an_empty_directory_is_unpacked_into(tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    pack.unpack(altered(tmp_path), tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["run.sh"]


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RefusedError, match=r"text: not a file system image \(ASCII text"):
        pack.unpack(tmp_path / "text", tmp_path / "back")
    with pytest.raises(ConstruirError, match="missing: No such file"):
        pack.unpack(tmp_path / "missing", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_large_mostly_empty_result_is_unpacked_whatever_its_ratio(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack.pack(images.job_directory(tmp_path / "job"), packed, 1100 * MIB)
    assert packed.stat().st_size < 200 * KIB
    pack.unpack(packed, tmp_path / "back")
    assert (tmp_path / "back" / "run.sh").read_bytes() == images.HELLO
