"""A path that is not what a command takes: an error of one line that says what to do, and nothing is harmed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp.cli import group
from construir_ftp.cli.main import construir
from construir_ftp.errors import ConstruirError

JOB = "name a directory with run.sh, or a job image"
PACK = "a job is a directory with a run.sh in it"
IMAGE = "name the image of a job or of a result"
MAKE = "make a job with: construir pack DIR"
RESULT = "is no directory of a signed result"
DEVICE = "is a pipe, a socket or a device, and no file; "
GONE, LINK, DIRECTORY = "is not there; ", "is a symbolic link to what is not there; ", "is a directory; "
PLACES = ("missing", "broken", "fifo", "/dev/null", "empty", "directory")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSTRUIR_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("CONSTRUIR_SERVER", "ftp://127.0.0.1:1")
    return tmp_path


def refusal(*words: str) -> tuple[int, str]:
    with pytest.raises(ConstruirError) as refused:
        construir(words, standalone_mode=False)
    assert "\n" not in str(refused.value)
    return refused.value.exit_code, str(refused.value)


EXPECTED: dict[str, list[tuple[int, str] | None]] = {
    "unpack {} new": [(66, GONE + IMAGE), (66, LINK + IMAGE), (2, DEVICE), (2, DEVICE), (65, MAKE), (2, DIRECTORY)],
    "inspect {}": [(66, GONE + MAKE), (66, LINK + MAKE), (2, DEVICE), (2, DEVICE), None, (2, DIRECTORY)],
    "run {}": [(66, GONE + JOB), (66, LINK + JOB), (2, DEVICE + JOB), (2, DEVICE + JOB), None, None],
    "submit {}": [(66, GONE + JOB), (66, LINK + JOB), (2, DEVICE), (2, DEVICE), None, None],
    "pack {}": [(66, PACK), (66, PACK), (2, PACK), (2, PACK), (2, PACK), (2, "construir init directory")],
    "verify ./{}": [None, None, (2, "is no directory"), None, (2, "is no directory"), (66, "it has no SHA256SUMS")],
    "rerun {}": [(66, RESULT), (66, RESULT), *[(2, RESULT)] * 4],
    "rebuild {}": [(66, RESULT), (66, RESULT), (2, RESULT), (2, RESULT), (74, "expected envelopes"), (2, RESULT)],
    "cosign {0} --with {0}": [(66, RESULT), (66, RESULT), *[(2, RESULT)] * 4],
    "image import {}": [(66, GONE), (66, LINK), (2, DEVICE), (2, DEVICE), None, (2, DIRECTORY)],
}


@pytest.mark.parametrize("command", EXPECTED)
@pytest.mark.usefixtures("place")
def test_a_path_that_is_not_what_a_command_takes_is_refused_in_one_line(command: str) -> None:
    for name, expected in zip(PLACES, EXPECTED[command], strict=True):
        if expected is not None:
            exit_code, words = refusal(*command.format(name).split())
            assert (exit_code, expected[1] in words) == (expected[0], True), (name, words)


def test_a_file_is_never_written_in_the_place_of_what_is_none(place: Path) -> None:
    """As root, who could replace /dev/null: nobody is asked to be root for this."""
    (place / "job").mkdir()
    (place / "job/run.sh").write_text("#!/bin/sh\n")
    (place / "job/run.sh").chmod(0o755)
    assert refusal("pack", "job", "-o", "fifo") == (
        2,
        "fifo is a pipe, a socket or a device; name a file to be written",
    )
    assert refusal("pack", "job", "-o", "directory") == (2, "directory is a directory; name a file to be written")
    assert refusal("image", "export", "none", "-o", "fifo")[0] == 2
    assert (place / "fifo").is_fifo()


def test_an_image_is_called_as_its_codec_is(place: Path) -> None:
    (place / "job").mkdir()
    (place / "job/run.sh").write_text("#!/bin/sh\n")
    (place / "job/run.sh").chmod(0o755)
    for options, name, better in (
        ((), "x.img.foo", "x.img.zst"),
        ((), "x.img.xz", "x.img.zst"),
        (("--codec", "xz"), "y.zst", "y.xz"),
        (("--codec", "raw"), "x.img.gz", "x.img"),
    ):
        exit_code, words = refusal("pack", "job", "-o", name, *options)
        assert (exit_code, words.endswith(f"; name it {better}")) == (2, True), words
    for name in ("x.img", "x-1.2", "x"):
        assert construir(["pack", "job", "-o", name], standalone_mode=False) in (0, None)


@pytest.mark.root("it becomes another user")
@pytest.mark.parametrize("command", ["unpack secret new", "inspect secret", "run secret", "submit secret"])
def test_a_file_of_others_is_told_as_what_it_is(place: Path, command: str) -> None:
    place.chmod(0o755)
    (place / "secret").write_bytes(bytes(4096))
    (place / "secret").chmod(0)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            construir(command.split(), standalone_mode=False)
        except ConstruirError as error:
            os.write(write, f"{error.exit_code} {error}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        assert said.read() == "1 secret can't be read by this user; change its mode, or give a copy"


def test_a_file_named_like_an_option_is_told_how_it_is_named(place: Path) -> None:
    (place / "-x.img").touch()
    (place / "--y.img").touch()
    for name, option in (("-x.img", "-x"), ("--y.img", "--y.img")):
        argv = [sys.executable, "-m", "construir_ftp", "unpack", name, "new"]
        said = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert said.returncode == 2
        expected = f"Error: No such option '{option}'. The file of that name is: ./{name}\n"
        assert said.stderr.endswith(expected), said.stderr
    assert group.file_meant("-z", ["-z"]) == ""
