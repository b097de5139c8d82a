import hashlib
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from construir_ftp.config import GateSection
from construir_ftp.diskimage import codec
from construir_ftp.errors import CommandError, MissingError, RefusedError, UsageError
from construir_ftp.formats import FORMATS
from construir_ftp.intake import live_check
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import request, result
from construir_ftp.jobs.result import Result
from construir_ftp.pack import filesystem, pack, unpack
from construir_ftp.pack.pack import Wrapping
from tests.support import images, smalldisk
from tests.support.appliance import construir
from tests.support.images import CODECS, MIB


def checked(packed: Path) -> Verdict:
    """What the gate says of a packed job."""
    with JudgePool(GateSection()) as judges:
        return live_check.check_file(packed, judges)


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


@pytest.mark.long
@pytest.mark.parametrize("name", CODECS)
def test_what_is_packed_passes_the_gate_and_comes_back(tmp_path: Path, name: str) -> None:
    source, packed = rich_job(tmp_path / "job"), tmp_path / "packed"
    pack.pack_directory(source, packed, Wrapping(space_bytes=MIB, codec=name, keep_times=True))
    found = checked(packed)
    assert (found.codec, found.filesystem) == (name, "ext2")
    assert unpack.unpack(packed, tmp_path / "back", every_name=True) == []
    assert listing(tmp_path / "back") == listing(source)
    assert (tmp_path / "back" / "again").samefile(tmp_path / "back" / "data")


@pytest.mark.long
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


@pytest.mark.long
def test_thousands_of_small_files_fit(tmp_path: Path) -> None:
    source = images.job_directory(tmp_path / "job")
    for number in range(5000):
        (source / f"{number}").write_text(f"{number}")
    pack.pack(source, tmp_path / "packed", 0)
    unpack.unpack(tmp_path / "packed", tmp_path / "back")
    assert len(list((tmp_path / "back").iterdir())) == 5001


def test_a_hole_stays_a_hole(tmp_path: Path) -> None:
    source = images.job_directory(tmp_path / "job")
    images.sparse(source / "hole", b"begin", 5 * 2**30)
    pack.pack(source, tmp_path / "packed", 0)
    assert (tmp_path / "packed").stat().st_size < 100_000
    unpack.unpack(tmp_path / "packed", tmp_path / "back")
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
    assert filesystem.fill(source, tmp_path / "image", blocks, inodes, filesystem.Times(1)) is None
    with pytest.raises(CommandError, match="No such file"):
        filesystem.fill(tmp_path / "missing", tmp_path / "image", blocks, inodes, filesystem.Times(1))


def test_a_socket_is_left_out(tmp_path: Path) -> None:
    source = images.job_directory(tmp_path / "job")
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        pack.pack(source, tmp_path / "packed", 0)
    unpack.unpack(tmp_path / "packed", tmp_path / "back")
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
        ("rm -r job; >job", "job: not a directory; a job is a directory with a run.sh in it"),
        ("rm job/run.sh", "run.sh: not there, or not a file; write one with: construir init"),
        ("rm job/run.sh; mkdir job/run.sh", "run.sh: not there, or not a file"),
        ("chmod 644 job/run.sh", "run.sh: not executable; run: chmod \\+x"),
        ("rmdir place", "place: not a directory; choose another place"),
        (
            "echo 'run = \"build.sh\"' > job/construir.toml",
            "build.sh: not there, or not a file; construir.toml names it",
        ),
        ("echo 'run = \"./a/b\"' > job/construir.toml; mkdir job/a; >job/a/b", "a/b: not executable; run: chmod \\+x"),
    ],
)
def test_what_is_no_job_is_not_packed(tmp_path: Path, spoil: str, words: str) -> None:
    images.job_directory(tmp_path / "job")
    (tmp_path / "place").mkdir()
    images.run("sh", "-c", f"cd '{tmp_path}'; {spoil}")
    with pytest.raises(UsageError, match=words):
        pack.pack(tmp_path / "job", tmp_path / "place" / "packed", 0)
    assert not (tmp_path / "place" / "packed").exists()


def test_what_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"job is not there; a job is a directory with a run.sh in it"):
        pack.pack(tmp_path / "job", tmp_path / "packed", 0)


@pytest.mark.parametrize("run", ["build.sh", "./scripts/build.sh"])
def test_a_job_is_packed_whose_construir_toml_names_another_program_than_run_sh(tmp_path: Path, run: str) -> None:
    source = images.job_directory(tmp_path / "job")
    (source / run).parent.mkdir(exist_ok=True)
    (source / "run.sh").rename(source / run)
    (source / request.FILE).write_text(f'run = "{run}"\n')
    assert pack.pack(source, tmp_path / "packed", 0) == []
    assert checked(tmp_path / "packed").codec == "zstd"
    (source / ".construirignore").write_text(f"{Path(run).name}\n")
    with pytest.raises(UsageError, match=r"build.sh: left out by .gitignore or .construirignore; a job needs it"):
        pack.pack(source, tmp_path / "packed", 0)


@pytest.mark.parametrize(
    ("run", "begin"),
    [
        ("run.sh", b"#!/bin/sh\r\necho x\r\n"),
        ("run.sh", b"echo x\r\n"),
        ("run.sh", b"\xef\xbb\xbf#!/bin/sh\n"),
        ("run.sh", "#!/bin/sh\n".encode("utf-16")),
        ("bin/build", b"#!/bin/sh\r\n"),
    ],
)
def test_text_of_another_system_is_refused_in_the_words_of_the_gate(tmp_path: Path, run: str, begin: bytes) -> None:
    job = images.job_directory(tmp_path / "job")
    (job / "bin").mkdir()
    (job / "construir.toml").write_text(f'run = "./{run}"\n')
    (job / run).write_bytes(begin)
    (job / run).chmod(0o755)
    with pytest.raises(RefusedError) as packing:
        pack.pack(job, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    images.run("mke2fs", "-q", "-t", "ext2", "-d", job, tmp_path / "job.img", "4M")
    with pytest.raises(RefusedError) as judging:
        checked(tmp_path / "job.img").require_admissible()
    assert f"{job}/{run} " in str(packing.value)
    assert str(packing.value).replace(f"{job}/", "") == str(judging.value)


@pytest.mark.parametrize("begin", [b"#!/bin/sh\necho 'a\r'\n", b"\x7fELF\0\0\r\n", b"\0\r\n", b""])
def test_what_the_gate_takes_is_packed(tmp_path: Path, begin: bytes) -> None:
    job = images.job_directory(tmp_path / "job")
    (job / "run.sh").write_bytes(begin)
    pack.pack(job, tmp_path / "packed")
    checked(tmp_path / "packed").require_admissible()


def test_an_unknown_codec_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no codec is called 'zip'"):
        pack.pack(images.job_directory(tmp_path / "job"), tmp_path / "packed", 0, "zip")


FULL = """
import sys
from pathlib import Path
from construir_ftp import errors
from construir_ftp.pack import pack
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


# -- the same every time ----------------------------------------------------------------------------------


def made(path: Path, names: list[str], stamp: int) -> Path:
    """A job with the same files as another, made in another order and at another time."""
    path.mkdir()
    for name in names:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(name * 1000)
        os.setxattr(path / name, "user.colour", b"blue")
    os.setxattr(path / "run.sh", "user.first", b"1")
    (path / "run.sh").chmod(0o755)
    (path / "to").symlink_to("run.sh")
    (path / "again").hardlink_to(path / "run.sh")
    for name in (*names, "to", "."):
        os.utime(path / name, (stamp, stamp), follow_symlinks=False)
    return path


@pytest.mark.parametrize("name", CODECS)
def test_the_same_files_make_the_same_bytes_whatever_their_times_and_order(tmp_path: Path, name: str) -> None:
    names = ["run.sh", *(f"d{number % 7}/f{number}" for number in range(60))]
    for number, order in enumerate((names, names[::-1])):
        job = made(tmp_path / f"job{number}", order, 10**9 + number * 10**7)
        pack.pack(job, tmp_path / f"packed{number}", MIB, name)
        time.sleep(0.01)
    assert (tmp_path / "packed0").read_bytes() == (tmp_path / "packed1").read_bytes()


ELSEWHERE = """
import hashlib, os, sys
from pathlib import Path
small, job = map(Path, sys.argv[1:])
os.umask(0o077)
from construir_ftp.pack import pack
left_out = pack.pack(job, small / "packed", 2**20)
assert not left_out, left_out
print(hashlib.sha256((small / "packed").read_bytes()).hexdigest())
"""


def test_the_same_files_make_the_same_bytes_whoever_packs_them_and_on_whatever_file_system(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        job = made(Path(shared) / "job", ["run.sh", "data"], 10**9)
        pack.pack(job, tmp_path / "packed", MIB)
        digest = smalldisk.run(tmp_path / "small", 64 * MIB, ELSEWHERE, job).strip()
    assert digest == hashlib.sha256((tmp_path / "packed").read_bytes()).hexdigest()


def test_times_are_kept_if_that_is_asked_for_and_otherwise_those_of_source_date_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = made(tmp_path / "job", ["run.sh"], 10**9)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    seen = {}
    for keep in (True, False):
        pack.pack_directory(job, tmp_path / "packed", Wrapping(codec="raw", keep_times=keep))
        unpack.unpack(tmp_path / "packed", tmp_path / f"back{keep}")
        seen[keep] = (tmp_path / f"back{keep}" / "run.sh").stat().st_mtime
    assert seen == {True: 10**9, False: 1234567890}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday'; expected seconds since 1970"):
        pack.pack(job, tmp_path / "packed", 0)


def test_extended_attributes_are_in_the_image(tmp_path: Path) -> None:
    pack.pack(made(tmp_path / "job", ["run.sh"], 1), tmp_path / "packed", 0, "raw")
    listed = images.run("debugfs", "-R", "ea_list run.sh", tmp_path / "packed")
    assert 'user.colour (4) = "blue"' in listed
    assert 'user.first (1) = "1"' in listed


@pytest.mark.long
@pytest.mark.parametrize("name", images.COMPRESSED)
def test_a_level_changes_the_size_and_passes_the_gate(tmp_path: Path, name: str) -> None:
    job = images.job_directory(tmp_path / "job")
    (job / "text").write_text(" ".join(str(number**3) for number in range(20_000)))
    levels = FORMATS[name].levels
    assert levels is not None
    sizes = []
    lowest, highest, _ = levels
    for level in (lowest, highest):
        pack.pack_directory(job, tmp_path / "packed", Wrapping(codec=name, level=level))
        sizes.append((tmp_path / "packed").stat().st_size)
        assert checked(tmp_path / "packed").codec == name
    assert sizes[0] != sizes[1]
    with pytest.raises(UsageError, match=f"{name} has levels from {lowest} to {highest}, not {highest + 1}"):
        pack.pack_directory(job, tmp_path / "packed", Wrapping(codec=name, level=highest + 1))


def test_modes_are_set_in_the_image_where_the_system_has_none(tmp_path: Path) -> None:
    pack.pack(rich_job(tmp_path / "job"), tmp_path / "image", 0, "raw")
    filesystem.set_modes(tmp_path / "image", {b"run.sh": 0o755, b"data": 0o600, b"with space": 0o700, b"link": 0o644})
    images.run("e2fsck", "-fn", tmp_path / "image")
    unpack.unpack(tmp_path / "image", tmp_path / "back")
    found = {path: mode for path, (mode, _, _) in listing(tmp_path / "back").items()}
    assert (found["run.sh"], found["data"], found["with space"]) == (0o755, 0o600, 0o700)


# -- what is packed ---------------------------------------------------------------------------------------


def content(packed: Path, back: Path) -> set[str]:
    unpack.unpack(packed, back)
    return {str(path.relative_to(back)) for path in back.rglob("*") if not path.is_dir()}


def project(path: Path) -> Path:
    """A directory with files that patterns may name."""
    images.job_directory(path)
    for name in ("main.c", "main.o", "sub/keep.o", "sub/build/out", "sub/deep/x.o", "secret"):
        (path / name).parent.mkdir(exist_ok=True, parents=True)
        (path / name).write_text(name)
    return path


def git(place: Path, *words: str) -> str:
    author = ("-c", "user.name=Alice", "-c", "user.email=alice@example.org")
    return images.run("git", "-C", place, *author, *words)


def committed(path: Path) -> Path:
    """The same as a git checkout, one of whose ignored files is tracked all the same."""
    project(path)
    (path / ".gitignore").write_text("*.o\n/sub/build/\n")
    (path / "sub/.gitignore").write_text("!keep.o\n")
    git(path, "init", "-q")
    git(path, "add", ".")
    git(path, "add", "-f", "sub/deep/x.o")
    git(path, "commit", "-qm", "all")
    return path


def test_construirignore_leaves_out_what_it_names_and_nothing_is_lost_with_everything(tmp_path: Path) -> None:
    job = project(tmp_path / "job")
    (job / ".gitignore").write_text("main.c\n")  # means nothing: this is no checkout
    (job / ".construirignore").write_text("*.o\n!keep.o\nbuild/\n/secret\n")
    pack.pack(job, tmp_path / "packed", 0)
    left = {"run.sh", "main.c", "sub/keep.o", ".gitignore", ".construirignore"}
    assert content(tmp_path / "packed", tmp_path / "back") == left
    pack.pack_directory(job, tmp_path / "packed", Wrapping(everything=True))
    assert content(tmp_path / "packed", tmp_path / "all") == left | {
        "main.o",
        "sub/build/out",
        "sub/deep/x.o",
        "secret",
    }


def test_what_git_ignores_is_left_out_of_a_checkout_but_not_what_it_tracks(tmp_path: Path) -> None:
    job = committed(tmp_path / "job")
    (job / "new.c").write_text("not added yet")
    (job / "main.c").unlink()
    (job / ".construirignore").write_text("secret")
    pack.pack(job, tmp_path / "packed", 0)
    expected = {"run.sh", "new.c", "sub/keep.o", "sub/deep/x.o", ".gitignore", "sub/.gitignore", ".construirignore"}
    assert content(tmp_path / "packed", tmp_path / "back") == expected


def test_a_commit_can_be_packed_into_the_directory_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(tmp_path / "job")
    monkeypatch.chdir(tmp_path)
    pack.pack_commit("job", "HEAD", Path("packed"), Wrapping())
    assert checked(tmp_path / "packed").codec == "zstd"


def test_a_submodule_is_packed_with_its_checkout_and_no_commit_has_it(tmp_path: Path) -> None:
    inner, outer = committed(tmp_path / "inner"), committed(tmp_path / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "module")
    git(outer, "commit", "-qm", "module")
    pack.pack(outer, tmp_path / "packed", 0)
    found = content(tmp_path / "packed", tmp_path / "back")
    assert "module/main.c" in found
    assert not any(name.startswith(".git/") or "/.git/" in name or name == "module/main.o" for name in found)
    with pytest.raises(UsageError, match="'module' is a submodule, which no commit holds"):
        pack.pack_commit(str(outer), "HEAD", tmp_path / "packed", Wrapping())


def test_a_commit_is_the_same_job_from_a_checkout_a_bare_repository_and_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = committed(tmp_path / "job")
    bare = tmp_path / "job.git"
    images.run("git", "clone", "-q", "--bare", job, bare)
    (job / "run.sh").write_text("changed since")
    (job / "run.sh").chmod(0o600)
    packed = []
    for number, source in enumerate((job, bare, f"file://{bare}")):
        old = os.umask(0o077 if number else 0o002)
        monkeypatch.setenv("HOME", str(tmp_path))
        pack.pack_commit(str(source), "HEAD", tmp_path / "packed", Wrapping())
        os.umask(old)
        packed.append((tmp_path / "packed").read_bytes())
        time.sleep(0.01)
    assert packed[0] == packed[1] == packed[2]
    assert "sub/deep/x.o" in content(tmp_path / "packed", tmp_path / "back")
    committed_at = int(git(job, "log", "-1", "--format=%ct"))
    assert (tmp_path / "back/run.sh").read_bytes() == images.HELLO
    assert (tmp_path / "back/run.sh").stat().st_mtime == committed_at
    with pytest.raises(UsageError, match="git knows of no commit 'nowhere'"):
        pack.pack_commit(str(bare), "nowhere", tmp_path / "packed", Wrapping())


def test_a_part_of_a_checkout_is_packed_alone(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / ".gitignore").write_text("*.o\n")
    git(top, "init", "-q")
    project(top / "job")
    git(top, "add", ".")
    git(top, "commit", "-qm", "all")
    expected = {"run.sh", "main.c", "sub/build/out", "secret"}
    pack.pack(top / "job", tmp_path / "packed", 0)
    assert content(tmp_path / "packed", tmp_path / "back") == expected
    pack.pack_commit(str(top / "job"), "HEAD", tmp_path / "packed", Wrapping())
    assert content(tmp_path / "packed", tmp_path / "again") == expected


def test_a_run_sh_that_is_left_out_is_told(tmp_path: Path) -> None:
    job = project(tmp_path / "job")
    (job / ".construirignore").write_text("*.sh\n")
    with pytest.raises(UsageError, match=r"run\.sh: left out by \.gitignore or \.construirignore"):
        pack.pack(job, tmp_path / "packed", 0)


def test_an_image_made_in_the_directory_it_is_made_of_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = project(tmp_path / "job")
    monkeypatch.chdir(job)
    for target in ("job.img.zst", "sub/job.img.zst"):
        made = []
        for _ in range(2):
            pack.pack(Path(), Path(target))
            made.append((job / target).read_bytes())
            killed = (job / target).with_name(".job.img.zst.abcd1234")
            killed.mkdir(exist_ok=True)
            (killed / "disk.img").write_text("left by a kill -9")
        assert made[0] == made[1]
        (job / target).unlink()
        images.run("rm", "-r", killed)


def test_an_image_that_was_packed_in_the_directory_is_left_out_wherever_it_is_packed_from_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = project(tmp_path / "job")
    pack.pack(job, tmp_path / "before")
    monkeypatch.chdir(job)
    assert pack.pack(Path(), Path("job.img.zst")) == []
    (job / "other.img.zst").write_bytes(b"no image of this directory")
    monkeypatch.chdir(tmp_path)
    assert pack.pack(job, tmp_path / "after") == ["job.img.zst: the directory, packed before"]
    (job / "other.img.zst").unlink()
    pack.pack(job, tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
    everything = Wrapping(everything=True)
    assert pack.pack_directory(job, tmp_path / "all", everything) == []
    assert (tmp_path / "all").stat().st_size > (tmp_path / "before").stat().st_size


@pytest.mark.parametrize("kind", ["directory", "checkout"])
def test_results_that_were_brought_into_a_project_are_no_part_of_its_next_job(tmp_path: Path, kind: str) -> None:
    job, packed = project(tmp_path / "job"), tmp_path / "packed"
    if kind == "checkout":
        images.run("git", "-C", job, "init", "-q")
    pack.pack(job, packed)
    before = packed.read_bytes()
    # Under its own name, as `construir run` and `fetch` bring it; under one that was chosen; and what is none.
    brought = result.encode(Result(status="success", id=(own := "20261129T154301Z-4ab4-job")))
    for name, text in ((own, brought), ("chosen", brought), ("none", b"{")):
        (job / name).mkdir()
        (job / name / "result.json").write_bytes(text)
    assert pack.pack(job, packed) == [f"{own}: the result of a job"]
    assert {"chosen/result.json", "none/result.json"} == results_in(content(packed, tmp_path / "some"))
    pack.pack_directory(job, packed, Wrapping(everything=True))
    assert f"{own}/result.json" in results_in(content(packed, tmp_path / "all"))
    images.run("rm", "-r", job / "chosen", job / "none")
    pack.pack(job, packed)
    assert packed.read_bytes() == before


def results_in(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.endswith("/result.json")}


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tiemout = 1", "construir.toml: tiemout: no such key (did you mean timeout?)"),
        ("timeout = 5", "construir.toml: timeout: expected"),
        ("#" * 20_000, "construir.toml has to be a file of at most 16 KiB"),
        (None, "construir.toml is a link; put the file in its place"),
    ],
)
def test_a_construir_toml_that_no_server_takes_is_refused_before_it_is_sent(
    tmp_path: Path, text: str | None, words: str
) -> None:
    job, packed = images.job_directory(tmp_path / "job"), tmp_path / "job.img.zst"
    if text is None:
        (job / "construir.toml").symlink_to("run.sh")
    else:
        (job / "construir.toml").write_text(text)
    said = construir("pack", job, "-o", packed)
    assert (said.returncode, said.stdout) == (65, "")
    assert said.stderr.startswith(f"construir: {job}/{words}")
    assert said.stderr.count("\n") == 1
    assert not packed.exists()
    image = images.of_directory(job, tmp_path / "job.img")
    assert (
        said.stderr.partition(": ")[2].replace(f"{job}/", "")
        == construir("inspect", image).stdout.partition("Refused: ")[2].splitlines(True)[0]
    )
