"""Promises of inspect: it says what the gate says, by the same judge, where there is no server."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import Config
from construir_ftp.pack import inspect, pack
from tests.support import images
from tests.support.appliance import construir
from tests.support.ftpclient import House
from tests.support.images import MIB
from tests.unit.pack.test_anywhere import light, poor


def directory(place: Path, asks: str) -> Path:
    made = images.job_directory(place / "job")
    (made / "construir.toml").write_text(asks)
    return made


def job(place: Path, asks: str = "", codec: str = "zstd") -> Path:
    pack.pack(directory(place, asks), place / "greet.img.zst", MIB, codec)
    return place / "greet.img.zst"


_ASKS = 'name = "hello"\ntimeout = "5min"\nspace = "10MiB"\n[dependencies]\npackages = ["gcc"]\n'


def test_inspect_tells_what_a_job_is_and_what_it_asks_for(tmp_path: Path) -> None:
    said = construir("inspect", job(tmp_path, _ASKS, "xz"), check=True)
    assert said.stderr == ""
    lines = said.stdout.splitlines()
    assert lines[:2] == ["226 Accepted", "name: hello"]
    assert lines[2].startswith("codec: xz, ")
    assert lines[3].startswith("file system: ext2, ")
    assert {"asks for timeout: 300s", "asks for space: 10485760B", "asks for dependencies: packages gcc"} <= set(lines)
    told = msgspec.json.decode(construir("inspect", "--json", tmp_path / "greet.img.zst", check=True).stdout)
    assert (told["accepted"], told["name"], told["asks"]["dependencies"]["packages"]) == (True, "hello", ["gcc"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "the zstd stream ends early"),
        (lambda path: path.write_bytes(b"hello\n" * 1000), "not a file system image (ASCII text"),
        (lambda path: path.write_bytes(b""), "the upload is empty"),
        (
            lambda path: path.write_bytes(path.read_bytes() + b"more"),
            "what follows the end of the zstd stream is no part of it",
        ),
        (lambda path: job(path.parent / "x", 'timeout = "9h"\n').rename(path), "timeout: at most 2h can be had"),
        (lambda path: images.of_directory(directory(path.parent / "x", "tiemout = 1\n"), path), "tiemout: no such key"),
        (lambda path: images.of_directory(directory(path.parent / "x", "#" * 20000), path), "a file of at most 16 KiB"),
    ],
)
def test_inspect_says_word_for_word_what_the_server_replies(
    house: House, tmp_path: Path, spoil: object, words: str
) -> None:
    (tmp_path / "x").mkdir()
    upload = job(tmp_path)
    spoil(upload)  # type: ignore[operator]
    said = construir("inspect", upload)
    reply = images.run("sh", "-c", f"curl -sv -T '{upload}' -u alice:'correct horse' {house.url('/queue/')} 2>&1 || :")
    refused = [line[2:].strip() for line in reply.splitlines() if line.startswith("< 55")]
    assert said.returncode == 65
    assert words in said.stdout
    # A server keeps what was cut, which is no part of the verdict.
    assert said.stdout.splitlines()[0] == refused[-1].partition(", or go on after")[0]


def test_inspect_needs_no_library_of_the_appliance(tmp_path: Path) -> None:
    for codec in images.CODECS:
        (tmp_path / codec).mkdir()
        upload = job(tmp_path / codec, _ASKS, codec)
        assert poor("inspect", upload).stdout == construir("inspect", upload, check=True).stdout


@pytest.mark.parametrize("without", [poor, light])
def test_inspect_without_libmagic_says_what_to_install_to_be_told_more(
    without: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    upload = tmp_path / "up.img"
    upload.write_bytes(images.tar())
    said = without("inspect", upload)
    assert (said.returncode, said.stderr) == (65, "")
    assert "550 Refused: not a file system image (libmagic would say of what kind, and " in said.stdout
    assert "is missing: pip install '.[appliance]'); make one with: construir pack DIR\n" in said.stdout


def test_a_name_that_the_server_would_refuse_is_refused(tmp_path: Path) -> None:
    upload = job(tmp_path).rename(tmp_path / "with space.img")
    report = inspect.inspect(upload, Config())
    assert report.reply.startswith("553 Refused: a job's name is 1 to 128 of")
