"""Artifacts: what `outputs` names comes out of an image as files, and nothing else does, however hostile the image."""

import errno
import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import ArtifactsSection
from construir_ftp.diskimage import extfs
from construir_ftp.jobs import modes
from construir_ftp.jobs.outputs import Allowance, Asked
from construir_ftp.jobs.result import Artifact, Result
from construir_ftp.runner import artifact_reader, artifacts
from construir_ftp.runner.artifact_reader import Bounds
from construir_ftp.runner.artifacts import Artifacts
from construir_ftp.units import Duration, Size
from tests.support import images, smalldisk, worst
from tests.support.images import KIB, MIB, TIB

LIMITS = ArtifactsSection(max_files=5, max_total=Size(8 * MIB))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A job's directory, to be filled, with some of what builds leave."""
    place = images.job_directory(tmp_path / "tree")
    (place / "out").mkdir()
    (place / "out/a.deb").write_bytes(b"a" * 100_000)
    (place / "out/b.deb").write_bytes(b"b")
    return place


def image_of(tree: Path, size: str = "16M", *options: str) -> Path:
    image = tree.with_name("disk.img")
    images.run("mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", tree, image, size)
    return image


def take(image: Path, *patterns: str, limits: ArtifactsSection = LIMITS) -> tuple[Artifacts, dict[str, int]]:
    """What is said to have been taken, and the sizes of what is there."""
    target = image.with_name("artifacts")
    taken = artifacts.take(image, patterns, target, limits)
    there = {path.name: path.lstat().st_size for path in target.iterdir()} if target.exists() else {}
    assert {file.name: file.bytes for file in taken.files} == there
    for path in target.glob("*"):
        assert path.is_file()
        assert not path.is_symlink()
    return taken, there


def test_files_come_out_as_they_are_with_their_sums(tree: Path) -> None:
    taken, there = take(image_of(tree), "out/*.deb")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    assert taken.left_out == ()
    assert [file.path for file in taken.files] == ["out/a.deb", "out/b.deb"]
    assert [file.sha256 for file in taken.files] == [
        hashlib.sha256(data).hexdigest() for data in (b"a" * 100_000, b"b")
    ]
    assert (tree.parent / "artifacts/a.deb").read_bytes() == b"a" * 100_000


def test_what_its_owner_could_run_is_told_and_can_be_run_only_where_it_is_brought_to(tree: Path) -> None:
    for name, mode in (("owner", 0o744), ("group", 0o654), ("setuid", 0o4755)):
        (tree / "out" / name).write_bytes(name.encode())
        (tree / "out" / name).chmod(mode)
    taken, _ = take(image_of(tree), "out/*")
    told = {file.name: file.executable for file in taken.files}
    assert told == {"a.deb": False, "b.deb": False, "group": False, "owner": True, "setuid": True}
    assert not any(path.stat().st_mode & 0o111 for path in (tree.parent / "artifacts").iterdir())
    (tree.parent / "artifacts/owner").chmod(0o640)
    modes.restore(tree.parent, Result(status="success", artifacts=taken.files))
    there = {path.name: path.stat().st_mode & 0o7777 for path in (tree.parent / "artifacts").iterdir()}
    assert there["owner"] == 0o750
    assert there["setuid"] & 0o7111 == 0o111
    assert not (there["group"] | there["a.deb"]) & 0o111


def test_a_result_makes_a_program_of_nothing_but_its_artifacts(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    outside.chmod(0o644)
    (tmp_path / "artifacts/link").symlink_to(outside)
    (tmp_path / "artifacts/directory").mkdir(mode=0o600)
    names = ("../outside", str(outside), "link", "directory", "gone", "")
    files = tuple(Artifact(name, name, 0, "", executable=True) for name in names)
    modes.restore(tmp_path, Result(status="success", artifacts=files))
    assert outside.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "artifacts/directory").stat().st_mode & 0o777 == 0o600


def test_who_asks_for_nothing_gets_no_directory(tree: Path) -> None:
    assert take(image_of(tree)) == (Artifacts(), {})
    taken, _ = take(tree.parent / "disk.img", "none/*", "out")
    assert taken == Artifacts((), ("none/*: matches no file", "out: matches no file"))
    assert not (tree.parent / "artifacts").exists()


def test_what_a_run_before_has_taken_is_replaced(tree: Path) -> None:
    take(image_of(tree), "out/*.deb")
    assert take(tree.parent / "disk.img", "run.sh")[1] == {"run.sh": len(images.HELLO)}


def test_files_of_one_name_are_called_by_their_paths(tree: Path) -> None:
    for place in ("x", "y"):
        (tree / place).mkdir()
        (tree / place / "test.log").write_text(place)
    taken, there = take(image_of(tree), "**/*.log", "out/b.deb")
    assert there == {"b.deb": 1, "x_test.log": 1, "y_test.log": 1}
    assert [file.path for file in taken.files] == ["out/b.deb", "x/test.log", "y/test.log"]


def test_names_that_could_hurt_are_left_out_and_told_harmlessly(tree: Path) -> None:
    for name in ("new\nline", "-rf", "two words", "\x1b[31mred", "\u202egpj.exe", "back\\slash"):
        (tree / "out" / name).write_text("hostile")
    (tree / "out" / os.fsdecode(b"\xff\xfe")).write_text("hostile")
    (tree / "out" / ("a" * 200)).write_text("hostile")
    (tree / "out" / ".hidden").write_text("hostile")
    taken, there = take(image_of(tree), "out/*", "out/.hidden")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    assert len(taken.left_out) == 9
    assert all(told.isascii() and told.isprintable() and len(told) <= 300 for told in taken.left_out)
    assert r"out/new\nline: an artifact can't be called that" in taken.left_out


@pytest.mark.parametrize("name", [b"../escaped", b"/tmp/evil1", b"a/b/c/d/e/", b"nul\0nul\0nu"])
def test_name_that_no_file_can_have_is_left_out_and_leads_nowhere(tree: Path, name: bytes) -> None:
    (tree / "XXXXXXXXXX").write_text("hostile")
    image = image_of(tree, "16M", "-O", "^metadata_csum")
    image.write_bytes(image.read_bytes().replace(b"XXXXXXXXXX", name[:10]))
    taken, there = take(image, "*", "out/*")
    assert there == {"a.deb": 100_000, "b.deb": 1, "run.sh": len(images.HELLO)}
    (told,) = taken.left_out
    assert "the image is damaged: a file in it can't be called" in told
    assert {path.name for path in tree.parent.iterdir()} == {"tree", "disk.img", "artifacts"}


def test_links_and_special_files_are_told_and_not_followed(tree: Path) -> None:
    (tree / "out/passwd").symlink_to("/etc/passwd")
    (tree / "out/up").symlink_to("../run.sh")
    (tree / "etc").symlink_to("/etc")
    os.mkfifo(tree / "out/pipe")
    image = image_of(tree)
    images.run("debugfs", "-w", "-R", "mknod disk b 8 0", image)
    taken, there = take(image, "out/*", "etc/passwd", "disk")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    assert sorted(taken.left_out) == [
        "disk: a device, and no file",
        "etc/passwd: matches no file",
        "out/passwd: a symbolic link, and no file",
        "out/pipe: a pipe, and no file",
        "out/up: a symbolic link, and no file",
    ]


def test_one_file_under_two_names_is_read_once(tree: Path) -> None:
    (tree / "out/c.deb").hardlink_to(tree / "out/a.deb")
    taken, there = take(image_of(tree), "out/*")
    assert there == {"a.deb": 100_000, "b.deb": 1, "c.deb": 100_000}
    assert taken.files[0].sha256 == taken.files[2].sha256
    assert (tree.parent / "artifacts/a.deb").stat().st_nlink == 2


def test_huge_sparse_file_is_left_out_and_a_small_one_takes_no_room(tree: Path) -> None:
    for name, size_bytes in (("huge", 2 * TIB), ("sparse", 4 * MIB)):
        images.sparse(tree / "out" / name, b"x", size_bytes)
    taken, there = take(image_of(tree), "out/*")
    assert there == {"a.deb": 100_000, "b.deb": 1, "sparse": 4 * MIB}
    assert taken.left_out == (f"out/huge: with its {2 * TIB} bytes more than {8 * MIB} in all",)
    assert (tree.parent / "artifacts/sparse").stat().st_blocks * 512 < 200_000


@pytest.mark.long
def test_very_many_files_are_no_more_than_the_limit_and_told_in_few_words(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    directories = 100 if request.config.getoption("--all") else 5
    tree = images.job_directory(tmp_path / "tree")
    (tree / "out").mkdir()
    for place in range(directories):
        (tree / f"out/{place:03}").mkdir()
        for number in range(1000):
            os.mknod(tree / f"out/{place:03}/{place:03}{number:03}")
    taken, there = take(image_of(tree, "64M", "-N", "110000"), "out/*/*")
    assert sorted(there) == ["000000", "000001", "000002", "000003", "000004"]
    assert len(taken.left_out) == 100
    assert taken.left_out[0] == "out/000/000005: more than 5 files"
    assert taken.left_out[-1] == f"and {1000 * directories - 104} more"


def test_unclean_image_is_mended_first(tree: Path) -> None:
    image = image_of(tree)
    images.run("debugfs", "-w", "-R", "set_super_value state 0", image)
    images.run("debugfs", "-w", "-R", "clri out/b.deb", image)
    taken, there = take(image, "out/*")
    assert there == {"a.deb": 100_000}
    assert taken.left_out == ()


DAMAGE = {
    "outside of the image": ("block[0] 0x7fffffff", "^extents,^64bit", "files lie outside of it"),
    "a bad map": ("block[IND] 0x7fffffff", "^extents,^64bit", "files lie outside of it"),
    "no extent tree": ("block[0] 0", "extents", "an extent tree makes no sense"),
    "no blocks": ("block[4] 0", "extents", "an extent in it has no blocks"),
    "encrypted": ("flags 0x80800", "encrypt", "it is encrypted"),
    "not in its inode": ("flags 0x10000000", "inline_data", "isn't there"),
    "too long": ("size 0xffffffffffffff", "^extents,^64bit", "is impossibly long"),
}


def damaged(tree: Path, path: str, damage: str) -> tuple[Path, str]:
    """An image of a directory, in which one inode is damaged; and why that can't be read."""
    field, features, why = DAMAGE[damage]
    image = image_of(tree, "16M", "-O", f"^metadata_csum,{features}")
    images.run("debugfs", "-w", "-R", f"set_inode_field {path} {field}", image)
    return image, why


@pytest.mark.parametrize("damage", DAMAGE)
def test_file_that_can_not_be_read_is_left_out_and_named_and_the_others_come(tree: Path, damage: str) -> None:
    (tree / "out/c.deb").write_bytes(b"c")
    (tree / "out/b.deb").write_bytes(images.noise(60_000))
    image, why = damaged(tree, "out/b.deb", damage)
    taken, there = take(image, "out/*")
    assert there == {"a.deb": 100_000, "c.deb": 1}
    (told,) = taken.left_out
    assert told.startswith("out/b.deb: ")
    assert why in told


@pytest.mark.parametrize("damage", ["outside of the image", "no extent tree", "encrypted", "no blocks"])
def test_directory_that_can_not_be_read_is_named_and_what_is_elsewhere_comes(tree: Path, damage: str) -> None:
    (tree / "bad").mkdir()
    (tree / "bad/d.deb").write_bytes(b"d")
    image, why = damaged(tree, "bad", damage)
    taken, there = take(image, "**/*.deb")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    (told,) = taken.left_out
    assert told.startswith("bad: ")
    assert why in told


def test_entry_that_leads_to_no_inode_is_named(tree: Path) -> None:
    (tree / "out/c.deb").write_bytes(b"c")
    image = image_of(tree, "16M", "-O", "^metadata_csum")
    data = image.read_bytes()
    image.write_bytes(images.with_fields(data, {data.index(b"c.deb") - 8: 9999999}))
    taken, there = take(image, "out/*")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    assert taken.left_out == ("out/c.deb: the image is damaged: there is no inode 9999999",)


def test_files_that_share_their_blocks_are_no_more_than_the_image_has(tree: Path) -> None:
    (tree / "out/big").write_bytes(images.noise(6 * MIB))
    image = image_of(tree, "16M", "-O", "^metadata_csum")
    for name in ("big2", "big3", "big4"):
        images.run("debugfs", "-w", "-R", f"copy_inode out/big <{20 + int(name[-1])}>", image)
        images.run("debugfs", "-w", "-R", f"link <{20 + int(name[-1])}> out/{name}", image)
    taken, there = take(image, "out/*", limits=ArtifactsSection(max_total=Size(100 * MIB)))
    assert sorted(there) == ["a.deb", "b.deb", "big", "big2"]
    assert len(taken.left_out) == 2
    assert all("share their blocks" in told for told in taken.left_out)


def test_image_that_ends_before_its_file_system_gives_what_it_has(tree: Path) -> None:
    (tree / "out/z").write_bytes(images.noise(6 * MIB))
    image = image_of(tree, "16M", "-O", "^metadata_csum,^has_journal")
    os.truncate(image, 4 * MIB)
    taken, there = take(image, "out/*")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    (told,) = taken.left_out
    assert told.startswith("out/z: the image is damaged: files lie outside of it")


def test_directories_that_are_nested_too_deep_are_named_and_what_is_above_comes(tree: Path) -> None:
    worst.deep_directories(tree, 700)
    taken, there = take(image_of(tree, "16M", "-N", "2000"), "**/*.deb", limits=ArtifactsSection())
    assert sorted(there) == ["100.deb", "200.deb", "300.deb", "400.deb", "500.deb", "a.deb", "b.deb"]
    (told,) = taken.left_out
    assert "nested more than 500 deep" in told


def test_directory_in_two_places_is_gone_into_once(tree: Path) -> None:
    image = image_of(tree, "16M", "-O", "^metadata_csum")
    images.run("debugfs", "-w", "-R", "link out out/again", image)
    images.run("debugfs", "-w", "-R", "link / out/top", image)
    taken, there = take(image, "**/*.deb")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    assert len(taken.left_out) == 2
    assert all("a directory in it is in two places" in told for told in taken.left_out)


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        (Bounds(names=50), "/: looking ended after 50 names"),
        (Bounds(directories=5), "/: only 5 directories were looked into"),
        (Bounds(files=30), "/: looking ended after 30 files that match"),
    ],
)
def test_looking_is_bounded_and_what_was_found_comes(tree: Path, bounds: Bounds, why: str) -> None:
    for place in range(10):
        (tree / f"{place}").mkdir()
        for number in range(20):
            (tree / f"{place}/{place}{number}.deb").write_text("x")
    with image_of(tree).open("rb") as file:
        asked = Asked(("**/*.deb", "none"), Allowance(1000, MIB))
        *said, _ = b"".join(artifact_reader.pick(extfs.Image(file), asked, bounds)).splitlines(), b""
    end = said[0][-1]
    assert why in end.decode()
    assert b"matches no file" not in end
    assert len(said[0]) > 1


@pytest.mark.long
@pytest.mark.parametrize("kind", worst.IMAGES)
def test_image_made_to_keep_the_reader_comes_to_an_end(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(worst.IMAGES[kind]())
    taken, there = take(image, "**/*", "*")
    assert len(there) <= 5
    assert not any("not done after" in told for told in taken.left_out)


def test_path_that_is_very_long_is_told_in_so_many_words(tree: Path) -> None:
    name = os.fsdecode(b"\xff" * 250)
    (tree / "out" / name).write_text("hostile")
    taken, there = take(image_of(tree), "out/*")
    assert there == {"a.deb": 100_000, "b.deb": 1}
    (told,) = taken.left_out
    assert len(told) <= 300


def test_what_is_no_ext_image_is_told(tree: Path) -> None:
    image = tree.with_name("disk.img")
    image.write_bytes(bytes(MIB))
    taken, _ = take(image, "out/*")
    assert "not an ext2, ext3 or ext4 image" in taken.left_out[0]


def test_time_that_looking_takes_is_bounded(tree: Path) -> None:
    taken, there = take(image_of(tree), "out/*", limits=ArtifactsSection(timeout=Duration(0.01)))
    assert taken.left_out == ("looking for artifacts came to an end: not done after 0.01 s",)
    assert there == {}


def found(**fields: object) -> str:
    said = {
        "type": "file",
        "name": "a.deb",
        "path": "out/a.deb",
        "bytes": 2,
        "like": None,
        "executable": False,
        **fields,
    }
    return msgspec.json.encode(said).decode() + "\n"


def test_what_the_picker_says_is_one_line_for_each_file_and_its_bytes(tree: Path) -> None:
    with image_of(tree).open("rb") as file:
        said = b"".join(artifact_reader.pick(extfs.Image(file), Asked(("out/b.deb",), Allowance(5, MIB))))
    assert said == found(name="b.deb", path="out/b.deb", bytes=1).encode() + b"b" + b'{"type":"end","left_out":[]}\n'


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (found(name="../a.deb") + "aa", []),
        (found(name="a\nb") + "aa", []),
        (found(bytes=-1), []),
        (found(bytes=2**62), []),
        (found(like="b.deb"), []),
        (found(path="\x1b[31m") + "aa", []),
        ((found() + "aa") * 2, ["a.deb"]),
        (found() + "aa" + found(name="b.deb", like="a.deb", bytes=3), ["a.deb"]),
        (found() + "aa" + '{"type":"end","left_out":["two\\nlines"]}', ["a.deb"]),
        (found() + "aa" + "\xff\n", ["a.deb"]),
        ("".join(found(name=name) + "aa" for name in "abcdef"), [*"abcde"]),
        (found() + "a", []),
        (found() + "aa", ["a.deb"]),
    ],
)
def test_picker_that_was_taken_over_writes_nothing_but_artifacts_within_their_limits(
    tree: Path, monkeypatch: pytest.MonkeyPatch, said: str, kept: list[str]
) -> None:
    taken_over = tree.with_name("python")
    taken_over.write_text(f"#!/bin/sh\nexec printf '%b' '{_octal(said)}'\n")
    taken_over.chmod(0o755)
    image = image_of(tree)
    monkeypatch.setattr("sys.executable", str(taken_over))
    taken, there = take(image, "out/*")
    assert sorted(there) == kept
    assert taken.left_out[-1].startswith("looking for artifacts came to an end: ")
    assert {path.name for path in tree.parent.iterdir()} <= {"tree", "disk.img", "artifacts", "python"}


def _octal(text: str) -> str:
    return "".join(f"\\0{ord(character):03o}" for character in text)


# Takes them again once there is room, as a runner does.
ON_A_FULL_DISK = """
import sys
from pathlib import Path
from construir_ftp.runner import artifacts
from construir_ftp.config import ArtifactsSection
place, image = Path(sys.argv[1]), Path(sys.argv[2])
filler = place / "filler"
filler.write_bytes(bytes(200 * 1024))
try:
    artifacts.take(image, ("out/*.deb",), place / "artifacts", ArtifactsSection())
except OSError as error:
    print(error.errno)
filler.unlink()
taken = artifacts.take(image, ("out/*.deb",), place / "artifacts", ArtifactsSection())
print(sorted((path.name, path.stat().st_size) for path in (place / "artifacts").iterdir()), taken.left_out)
"""


def test_full_disk_is_no_artifact_left_out_but_tried_again(tree: Path, tmp_path: Path) -> None:
    image = image_of(tree)
    said = smalldisk.run(tmp_path / "small", 256 * KIB, ON_A_FULL_DISK, image).splitlines()
    assert said == [str(errno.ENOSPC), "[('a.deb', 100000), ('b.deb', 1)] ()"]
