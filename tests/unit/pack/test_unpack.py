"""Promises of unpack: everything comes out as it was, and what a hostile image asks for beyond that does not."""

import os
import stat
import struct
from pathlib import Path

import pytest

from construir_ftp.errors import ConstruirError, RefusedError, UsageError
from construir_ftp.pack import pack, unpack
from tests.support import images
from tests.support.images import KIB, MIB


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
        unpack.unpack(path, directory)
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "levels", "why"),
    [("d", 600, "is nested too deep"), ("d" * 200, 40, "has too long a path for this system")],
)
@pytest.mark.parametrize("every_name", [False, True])
def test_a_directory_nested_too_deep_is_left_out_and_told_and_the_rest_comes(
    tmp_path: Path, name: str, levels: int, why: str, every_name: bool
) -> None:
    (tmp_path / "script").write_text(f"mkdir {name}\ncd {name}\nwrite /etc/hostname f\n" * levels)
    image = altered(tmp_path)
    images.run("debugfs", "-w", "-f", tmp_path / "script", image)
    left_out = unpack.unpack(image, tmp_path / "back", every_name=every_name)
    assert {left.why for left in left_out} == {why}
    assert len(left_out) <= 2
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"run.sh", name}
    come = sum("f" in files for _, _, files in os.walk(tmp_path / "back"))
    assert levels // 3 < come < levels


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
    unpack.unpack(altered(tmp_path, "set_inode_field run.sh mode 0107755"), tmp_path / "back")
    assert stat.S_IMODE((tmp_path / "back" / "run.sh").stat().st_mode) == 0o755


def test_devices_and_pipes_are_left_out_and_told(tmp_path: Path) -> None:
    image = altered(tmp_path, "mknod disk b 8 0", "mknod null c 1 3", "mknod pipe p")
    left_out = unpack.unpack(image, tmp_path / "back")
    assert {left.path.name for left in left_out} == {"disk", "null", "pipe"}
    assert all("is a device, a socket or a pipe" in left.why for left in left_out)
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["run.sh"]


def test_what_is_unpacked_belongs_to_whoever_unpacks_it(tmp_path: Path) -> None:
    unpack.unpack(altered(tmp_path, "set_inode_field run.sh uid 12345"), tmp_path / "back")
    assert (tmp_path / "back" / "run.sh").stat().st_uid == os.geteuid()


def test_an_image_of_a_machine_that_was_switched_off_is_mended_first(tmp_path: Path) -> None:
    image = altered(tmp_path, "set_super_value state 0", "clri run.sh", filesystem="ext4")
    unpack.unpack(image, tmp_path / "back")
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
    unpack.unpack(image, tmp_path / "back")
    assert b"replayed" in (tmp_path / "back" / "run.sh").read_bytes()


def test_a_directory_in_use_is_not_unpacked_into(tmp_path: Path) -> None:
    image = altered(tmp_path)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "mine").touch()
    for directory in (tmp_path / "back", image):
        with pytest.raises(UsageError, match="not empty; choose a new directory"):
            unpack.unpack(image, directory)


def test_an_empty_directory_is_unpacked_into(tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    unpack.unpack(altered(tmp_path), tmp_path / "back")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["run.sh"]


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RefusedError, match=r"text: not a file system image \(ASCII text"):
        unpack.unpack(tmp_path / "text", tmp_path / "back")
    with pytest.raises(ConstruirError, match="missing: No such file"):
        unpack.unpack(tmp_path / "missing", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.long
def test_a_large_mostly_empty_result_is_unpacked_whatever_its_ratio(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack.pack(images.job_directory(tmp_path / "job"), packed, 1100 * MIB)
    assert packed.stat().st_size < 200 * KIB
    unpack.unpack(packed, tmp_path / "back")
    assert (tmp_path / "back" / "run.sh").read_bytes() == images.HELLO


NOT_ON_EVERY_SYSTEM = [
    "CON",
    "NUL.txt",
    "aux",
    "COM1",
    "LPT1.log",
    "end.",
    "end ",
    "a:b",
    "a\\b",
    "a<b",
    "a>b",
    "a|b",
    "a?b",
]
NOT_ON_EVERY_SYSTEM += ["a*b", 'a"b', "a\nb", "a\u202eb", "a\x1b[2J", "nul .c", "Lpt\u00b9"]


def packed_with(tmp_path: Path, *names: str) -> Path:
    job = images.job_directory(tmp_path / "job")
    for name in names:
        (job / name).parent.mkdir(parents=True, exist_ok=True)
        (job / name).write_text(name)
    pack.pack_directory(job, tmp_path / "packed", pack.Wrapping(space_bytes=MIB, codec="raw"))
    return tmp_path / "packed"


def test_names_that_mean_another_file_elsewhere_are_left_out_and_told_and_the_rest_comes(tmp_path: Path) -> None:
    packed = packed_with(tmp_path, "d/good", *(f"d/{name}" for name in NOT_ON_EVERY_SYSTEM))
    left_out = unpack.unpack(packed, tmp_path / "back")
    assert sorted(left.path.name for left in left_out) == sorted(NOT_ON_EVERY_SYSTEM)
    assert all(left.why and left.why.isprintable() for left in left_out)
    assert [path.name for path in (tmp_path / "back/d").iterdir()] == ["good"]


def test_of_names_that_differ_by_case_or_by_normal_form_one_comes(tmp_path: Path) -> None:
    packed = packed_with(tmp_path, "Make", "make", "caf\u00e9", "cafe\u0301", "D/x", "d/x", "straße", "STRASSE")
    left_out = unpack.unpack(packed, tmp_path / "back")
    assert len(left_out) == 4
    assert all("is called like" in left.why for left in left_out)
    assert len(list((tmp_path / "back").iterdir())) == 5


def test_what_is_below_a_directory_that_is_left_out_is_left_out_with_it(tmp_path: Path) -> None:
    left_out = unpack.unpack(packed_with(tmp_path, "aux.d/x", "aux.d/y", "b/x"), tmp_path / "back")
    assert [left.path.name for left in left_out] == ["aux.d"]
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["b", "run.sh"]


def test_every_name_comes_where_it_is_asked_for(tmp_path: Path) -> None:
    packed = packed_with(tmp_path, "Make", "make", "aux", "man/Foo::Bar.3pm")
    assert unpack.unpack(packed, tmp_path / "back", every_name=True) == []
    assert (tmp_path / "back/man/Foo::Bar.3pm").read_text() == "man/Foo::Bar.3pm"
    assert {"Make", "make", "aux"} < {path.name for path in (tmp_path / "back").iterdir()}
