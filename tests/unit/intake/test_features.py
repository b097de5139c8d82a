"""Every feature of ext that the machine's kernel knows: construir.toml is obeyed, or the reply says why it can't be.

The images are those of the real mke2fs, tune2fs and debugfs; docs/intake.md has a row for each.
"""

import io
import re
import subprocess
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.config import GateSection
from construir_ftp.diskimage import ext_features
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.errors import RefusedError
from construir_ftp.intake import judge
from construir_ftp.intake.verdict import Verdict
from tests.support import images
from tests.support.images import KIB, MIB
from tests.support.places import PROJECT

TOML = 'name = "asked"\n'
MENDED = "mend it with /sbin/e2fsck -fy FILE, and send it again"


def judged(path: Path) -> Verdict:
    return judge.judge(UploadReader(io.BytesIO(path.read_bytes())), GateSection())


def asked(path: Path) -> str:
    """What the job asks for; if it is refused for that, the refusal is the test's failure."""
    found = judged(path)
    found.require_admissible()
    return found.construir_toml


def refusal(path: Path) -> str:
    with pytest.raises(RefusedError) as refused:
        judged(path).require_admissible()
    assert len(str(refused.value)) <= 300
    return str(refused.value)


def made(tmp_path: Path, *options: str, toml: str = TOML, size: int = 16 * MIB) -> Path:
    """An image with a run.sh and a construir.toml, by mke2fs; a version that can't make it is a reason to skip."""
    tree, path = images.job_directory(tmp_path / "tree"), tmp_path / "image"
    (tree / "construir.toml").write_text(toml)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", str(tree), str(path), f"{size // KIB}k"]
    done = subprocess.run(argv, env=process.environment(), capture_output=True, text=True, check=False)
    if done.returncode and "nvalid filesystem option" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert not done.returncode, done.stderr
    return path


def debugfs(path: Path, *requests: str) -> str:
    """Have debugfs change an image, and say what it said."""
    script = path.with_name("requests")
    script.write_text("".join(f"{request}\n" for request in requests))
    return images.run("debugfs", "-w", "-f", script, path)


READ = [
    ("meta_bg", "-O", "meta_bg,^resize_inode"),
    ("meta_bg", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "1024"),
    ("meta_bg", "-O", "meta_bg,^resize_inode,^64bit", "-b", "2048"),
    ("meta_bg", "-O", "meta_bg,^resize_inode,bigalloc", "-b", "1024", "-C", "4096"),
    ("inline_data", "-O", "inline_data"),
    ("inline_data", "-O", "inline_data", "-I", "1024"),
    ("64bit", "-O", "64bit"),
    ("64bit", "-O", "^64bit"),
    ("extent", "-O", "^extent,^64bit"),
    ("flex_bg", "-O", "^flex_bg"),
    ("flex_bg", "-O", "flex_bg", "-G", "64"),
    ("bigalloc", "-O", "bigalloc", "-C", "65536"),
    ("casefold", "-O", "casefold"),
    ("encrypt", "-O", "encrypt"),
    ("verity", "-O", "verity"),
    ("large_dir", "-O", "large_dir"),
    ("ea_inode", "-O", "ea_inode"),
    ("metadata_csum", "-O", "metadata_csum"),
    ("metadata_csum_seed", "-O", "metadata_csum,metadata_csum_seed"),
    ("uninit_bg", "-O", "^metadata_csum,uninit_bg"),
    ("uninit_bg", "-O", "^metadata_csum,^uninit_bg"),
    ("mmp", "-O", "mmp"),
    ("has_journal", "-O", "^has_journal"),
    ("fast_commit", "-O", "fast_commit"),
    ("orphan_file", "-O", "orphan_file"),
    ("quota", "-O", "quota"),
    ("project", "-O", "project,quota"),
    ("sparse_super", "-O", "^sparse_super,^resize_inode"),
    ("sparse_super2", "-O", "sparse_super2,^resize_inode"),
    ("sparse_super2", "-O", "sparse_super2,meta_bg,^resize_inode"),
    ("stable_inodes", "-O", "stable_inodes"),
    ("huge_file", "-O", "^huge_file"),
    ("large_file", "-O", "^large_file"),
    ("dir_nlink", "-O", "^dir_nlink"),
    ("extra_isize", "-O", "^extra_isize,^metadata_csum"),
    ("dir_index", "-O", "^dir_index"),
    ("ext_attr", "-O", "^ext_attr"),
    ("filetype", "-O", "^filetype"),
    ("resize_inode", "-O", "^resize_inode"),
]


@pytest.mark.long
@pytest.mark.parametrize("options", READ, ids=" ".join)
def test_construir_toml_is_obeyed(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert asked(made(tmp_path, *options[1:])) == TOML


@pytest.mark.parametrize("inode", ["256", "512", "1024"])
@pytest.mark.parametrize("length", [60, 61, 130, 700, 16_000])
def test_construir_toml_is_obeyed_wherever_it_is_kept(tmp_path: Path, inode: str, length: int) -> None:
    toml = TOML + "#" * (length - len(TOML))
    assert asked(made(tmp_path, "-O", "inline_data", "-I", inode, toml=toml)) == toml


SET_BY_DEBUGFS = ["dir_prealloc", "imagic_inodes", "lazy_bg", "snapshot_bitmap", "orphan_present", "btree_dir"]


@pytest.mark.parametrize("feature", SET_BY_DEBUGFS)
def test_construir_toml_is_obeyed_whatever_has_no_say_in_it(tmp_path: Path, feature: str) -> None:
    path = made(tmp_path)
    bits = next(kind[feature.upper()] for kind in KINDS if feature.upper() in kind.__members__)
    debugfs(path, f"set_super_value feature_{FIELDS[type(bits)]} {_has(path, type(bits)) | bits:#x}")
    assert asked(path) == TOML


KINDS = (ext_features.Compat, ext_features.Incompat, ext_features.RoCompat)
FIELDS = dict(zip(KINDS, ("compat", "incompat", "ro_compat"), strict=True))
PLACES = dict(zip(KINDS, (1116, 1120, 1124), strict=True))


def _has(path: Path, kind: type[ext_features.Compat | ext_features.Incompat | ext_features.RoCompat]) -> int:
    return images.field(path.read_bytes()[:4096], PLACES[kind])


@pytest.mark.parametrize("state", [0, 2, 3])
def test_construir_toml_is_obeyed_although_errors_were_noted(tmp_path: Path, state: int) -> None:
    path = made(tmp_path)
    debugfs(path, f"set_super_value state {state}")
    assert asked(path) == TOML


REFUSED = ["compression", "dirdata", "has_snapshot", "replica", "read-only", "shared_blocks"]


@pytest.mark.parametrize("feature", REFUSED)
def test_what_the_machine_can_not_write_to_is_refused_by_name(tmp_path: Path, feature: str) -> None:
    path = made(tmp_path)
    name = feature.upper().replace("-", "_")
    bits = next(kind[name] for kind in KINDS if name in kind.__members__)
    debugfs(path, f"set_super_value feature_{FIELDS[type(bits)]} {_has(path, type(bits)) | bits:#x}")
    said = f"the machine can't write to an ext with the feature {feature}; make the image without it"
    assert refusal(path) == said


def test_journal_of_another_file_system_is_refused(tmp_path: Path) -> None:
    journal, path = tmp_path / "journal", made(tmp_path, "-O", "^has_journal")
    images.run("mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096", journal, "4096k")
    assert "this is an ext journal, not a file system" in refusal(journal)
    debugfs(path, "feature has_journal", "set_super_value journal_dev 0x801")
    assert "tune2fs -O ^has_journal FILE" in refusal(path)


def test_construir_toml_in_a_journal_only_is_refused_until_e2fsck_has_replayed_it(tmp_path: Path) -> None:
    path, block = made(tmp_path, "-O", "^metadata_csum", "-b", "4096"), tmp_path / "block"
    place = int(debugfs(path, "blocks /").split()[-1])
    data = path.read_bytes()
    block.write_bytes(data[place * 4096 :][:4096])
    debugfs(path, "unlink construir.toml")
    assert asked(path) == ""
    debugfs(path, "journal_open", f"journal_write -b {place} {block}", "journal_close")
    assert "its journal is not replayed (needs_recovery); mend it with /sbin/e2fsck -fy FILE" in refusal(path)
    subprocess.run(["e2fsck", "-fy", path], env=process.environment(), capture_output=True, check=False)
    assert asked(path) == TOML


def test_image_that_is_refused_for_its_journal_is_judged_all_the_same_for_who_only_looks(tmp_path: Path) -> None:
    path = made(tmp_path)
    debugfs(path, "feature needs_recovery")
    found = judged(path)
    assert (found.filesystem, found.construir_toml) == ("ext4", "")
    assert found.objection.endswith(MENDED)


def in_casefold(path: Path) -> Path:
    """The same, with a root directory that takes capitals and small letters for the same."""
    flags = int(re.search(r"Flags: (0x[0-9a-f]+)", debugfs(path, "stat /"))[1], 16)  # type: ignore[index]
    debugfs(path, f"set_inode_field / flags {flags | 0x40000000:#x}")
    return path


def test_construir_toml_in_a_casefolded_root_is_obeyed(tmp_path: Path) -> None:
    assert asked(in_casefold(made(tmp_path, "-O", "casefold"))) == TOML


@pytest.mark.parametrize(
    "name", ["Construir.TOML", "con\u017ftruir.toml", "construir.toml\u00ad", "\uff43onstruir.toml"]
)
def test_what_a_casefolded_root_may_take_for_construir_toml_is_refused(tmp_path: Path, name: str) -> None:
    tree, path = images.job_directory(tmp_path / "tree"), tmp_path / "image"
    (tree / name).write_text(TOML)
    images.run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "casefold", "-d", tree, path, "16m")
    if name.isascii():
        assert (
            refusal(path) == f"construir.toml is called {name} here, and would not be read; rename it to construir.toml"
        )
    else:
        assert asked(path) == "", "elsewhere a name is its bytes"
    assert "may be taken for construir.toml" in refusal(in_casefold(path))


def test_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path, "-O", "casefold")
    debugfs(path, "set_super_value encoding 7")
    assert "superblock makes no sense (encoding of casefold)" in refusal(path)


@pytest.mark.parametrize(("what", "flags"), [("/", 0x80800), ("construir.toml", 0x80800)])
def test_what_is_encrypted_is_refused(tmp_path: Path, what: str, flags: int) -> None:
    path = made(tmp_path, "-O", "encrypt")
    debugfs(path, f"set_inode_field {what} flags {flags:#x}")
    assert refusal(path) == "construir.toml can't be read: it is encrypted (the feature encrypt): decrypt it before"


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ("set_inode_field construir.toml links_count 0", "a file in it is deleted, or none"),
        ("set_inode_field construir.toml flags 0x200000", "a file in it is deleted, or none"),
        ("set_inode_field construir.toml flags 0x10000000", "a file that is said to be in its inode isn't there"),
        ("set_inode_field construir.toml block[0] 0xffff", "an extent tree makes no sense"),
        ("set_inode_field construir.toml block[1] 0x00060004", "an extent tree makes no sense"),
        ("set_inode_field construir.toml block[5] 0x7fffffff", "files lie outside of it"),
        ("set_inode_field construir.toml block[4] 0", "an extent in it has no blocks"),
        ("set_inode_field / block[5] 0x7fffffff", "files lie outside of it"),
        ("set_inode_field / mode 0100644", "it has no root directory"),
        ("set_block_group 0 inode_table 0x7fffffff", "the inodes of group 0 are not in it"),
    ],
)
def test_there_is_none_is_never_said_because_of_damage(tmp_path: Path, request_: str, why: str) -> None:
    path = made(tmp_path, "-O", "^metadata_csum,^uninit_bg,^64bit")
    debugfs(path, request_)
    said = refusal(path)
    assert said.startswith("construir.toml can't be read: the image is damaged: ")
    assert why in said
    assert said.endswith(MENDED)


@pytest.mark.parametrize("kind", ["directory", "link", "pipe", "long", "not text"])
def test_construir_toml_that_is_no_short_text_is_refused(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, "-O", "^metadata_csum", toml="#" * (16 * KIB + (kind == "long")))
    said = "construir.toml has to be a file of at most 16 KiB"
    said = {
        "directory": "construir.toml is a directory, and has to be a file of at most 16 KiB",
        "link": "construir.toml is a link; put the file in its place",
    }.get(kind, said)
    special = {"directory": "mkdir {}", "link": "symlink {} run.sh", "pipe": "mknod {} p"}
    if kind in special:
        debugfs(path, "rm construir.toml", special[kind].format("construir.toml"))
    elif kind == "not text":
        data = path.read_bytes()
        path.write_bytes(data.replace(b"#" * 1000, b"\xff" * 1000))
        said = "construir.toml: not UTF-8 text (byte 0); save it as UTF-8"
    assert refusal(path) == said


def test_construir_toml_that_is_the_journal_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path, "-O", "^metadata_csum")
    debugfs(path, "unlink construir.toml", "link <8> construir.toml")
    assert "a file in it is deleted, or none (inode 8)" in refusal(path)


def test_root_directory_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path, "-O", "^metadata_csum")
    debugfs(path, f"set_inode_field / size {17 * MIB}")
    assert "a directory has more than 16 MiB of names" in refusal(path)


def test_every_feature_has_a_row_in_the_page() -> None:
    page = (PROJECT / "docs/intake.md").read_text()
    rows = {name for line in page.splitlines() if line.startswith("|") for name in re.findall(r"`([a-z0-9_-]+)`", line)}
    known = {ext_features.name_of(feature) for kind in KINDS for feature in kind}
    assert known <= rows
