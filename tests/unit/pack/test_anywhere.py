"""Packing where there is little: without what only Linux has, and without the libraries of the appliance."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp.config import GateSection
from construir_ftp.errors import MachineUnavailableError
from construir_ftp.intake import live_check
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.jobs.spool import Spool
from construir_ftp.pack import filesystem, pack
from tests.support import images, signed

# What Python has on Linux only, or not on Windows; and what `pip install .` leaves to the extra "appliance".
_ADVICE = "in a checkout of Construir, run: deploy/prepare, on Debian; elsewhere: pip install '.[appliance]'"
_SYSTEM = ("fcntl", "grp", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty", "curses", "readline")
_LIBRARIES = ("argon2", "elftools", "magic", "pyftpdlib", "schedule", "sh")
_PACKAGES = ("argon2-cffi", "pyelftools", "python-magic", "pyftpdlib", "schedule", "sh")
_OF_OS = (
    *("O_PATH", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "SEEK_DATA", "SEEK_HOLE", "fork", "geteuid", "getuid"),
    *("listxattr", "getxattr", "setxattr", "pread", "pwrite", "sched_getaffinity", "killpg", "pidfd_open", "mkfifo"),
)
_SCRIPT = f"""
import os, signal, socket, sys
for name in {(*_SYSTEM, *_LIBRARIES)}:
    sys.modules[name] = None
import subprocess, shutil, tempfile  # they find out by themselves
for name in {_OF_OS}:
    if hasattr(os, name):
        delattr(os, name)
import ctypes
ctypes.CDLL = None
from construir_ftp.cli.main import main
main()
"""


def poor(*words: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """The command, where there is none of this."""
    argv = [sys.executable, "-c", _SCRIPT, *map(str, words)]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False)


def light(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """The command on Linux, where only the libraries of the extra "appliance" are missing."""
    script = f"import sys\nfor name in {_LIBRARIES}:\n    sys.modules[name] = None\n"
    argv = [sys.executable, "-c", script + "from construir_ftp.cli.main import main\nmain()\n", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def mke2fs(tmp_path: Path) -> Path:
    """A directory with nothing in it but mke2fs, which notes that it was started."""
    place = tmp_path / "bin"
    place.mkdir()
    real = shutil.which("mke2fs", path="/usr/sbin:/sbin")
    (place / "mke2fs").write_text(f'#!/bin/sh\n: >"{place}/started"\nexec {real} "$@"\n')
    (place / "mke2fs").chmod(0o755)
    return place


def test_packing_takes_nothing_that_only_linux_has_and_finds_mke2fs_on_path(tmp_path: Path, mke2fs: Path) -> None:
    job, packed = images.job_directory(tmp_path / "job"), tmp_path / "job.img.zst"
    said = poor("pack", job, "-o", packed, PATH=str(mke2fs))
    assert (said.returncode, said.stderr) == (0, "")
    assert (mke2fs / "started").exists()
    with JudgePool(GateSection()) as judges:
        assert live_check.check_file(packed, judges).filesystem == "ext2"


def test_all_commands_are_listed_and_those_that_lack_something_say_what_to_install() -> None:
    listed = poor("--help")
    assert (listed.returncode, listed.stderr) == (0, "")
    for command in ("pack", "inspect", "unpack", "verify", "serve", "image"):
        assert f"\n  {command} " in listed.stdout
    lacking = poor("serve", "ftp", "--port", "0")
    assert lacking.returncode == 69
    assert lacking.stderr.startswith("construir: construir serve needs Construir's part for appliances, ")
    assert lacking.stderr.endswith(f"is missing; {_ADVICE}\n")
    assert lacking.stderr.count("\n") == 1


def test_a_result_is_verified_without_what_only_linux_has(spool: Spool, tmp_path: Path) -> None:
    """The library cryptography, which is installed with Construir there, does without openssl."""
    seal = signed.seal(spool.path)
    done = signed.result(spool, seal)
    known = tmp_path / "known.pub"
    known.write_text(seal.key.public.line())
    said = poor("verify", done, "--key", known, PATH=str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith(f"{signed.ID}: success")
    (done / "output.log").write_bytes(b"")
    assert poor("verify", done, "--key", known, PATH=str(tmp_path)).returncode == 74


@pytest.mark.parametrize("words", [("shell", "job.img.zst"), ("check",), ("image", "build"), ("user", "add", "bob")])
def test_a_light_install_says_once_what_to_install(tmp_path: Path, words: tuple[str, ...]) -> None:
    packed = tmp_path / "job.img.zst"
    pack.pack(images.job_directory(tmp_path / "job"), packed)
    said = light(*(packed if word == packed.name else word for word in words), "--spool", tmp_path / "spool")
    assert said.returncode == 69
    assert said.stderr.endswith(f"is missing; {_ADVICE}\n")
    assert said.stderr.partition("and here ")[2].partition(" is missing")[0] in _PACKAGES, "as PyPI calls it"
    assert (said.stderr.count("\n"), said.stdout) == (1, "")


def test_what_serves_pages_says_what_to_install_like_all_parts(tmp_path: Path) -> None:
    script = "import sys\nsys.modules['waitress'] = None\nfrom construir_ftp.cli.main import main\nmain()\n"
    argv = [sys.executable, "-c", script, "serve", "web", f"--spool={tmp_path}"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 69
    advice = f"and here waitress is missing; {_ADVICE}\n"
    assert said.stderr.endswith(advice)


def test_a_missing_mke2fs_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(filesystem, "_PLACES", (str(tmp_path),))
    remedies = {"linux": "apt install e2fsprogs", "darwin": "brew install e2fsprogs", "win32": "Cygwin"}
    for platform, remedy in remedies.items():
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(MachineUnavailableError, match=f"packing needs mke2fs, which is not here; .*{remedy}"):
            filesystem.find_mke2fs()


def test_homebrews_mke2fs_is_found_where_it_hides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keg = "/opt/homebrew/opt/e2fsprogs/sbin"
    assert keg in filesystem._PLACES
    (tmp_path / "mke2fs").write_text("#!/bin/sh\n")
    (tmp_path / "mke2fs").chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    places = tuple(str(tmp_path) if place == keg else "/nowhere" for place in filesystem._PLACES)
    monkeypatch.setattr(filesystem, "_PLACES", places)
    assert filesystem.find_mke2fs() == str(tmp_path / "mke2fs")
