"""What a job may ask for: every mistake is told by its key, and nothing is granted beyond the terms."""

import pytest

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import request
from construir_ftp.jobs.request import Terms, Wishes
from construir_ftp.units import Duration, Size

TERMS = Terms(
    timeout_s=7200,
    idle_timeout_s=1800,
    cpus=2,
    memory_bytes=2**30,
    image_bytes=2**30,
    bases=("bookworm-amd64", "trixie-amd64"),
)
ALL = """
name = "hello"
run = "./build/all.sh"
base = "trixie-amd64"
timeout = "30m"
idle_timeout = "10m"
cpus = 2
memory = "1GiB"
space = "500MiB"
outputs = ["out/*.deb"]
[env]
CFLAGS = "-O2 -g"
[dependencies]
packages = ["build-essential", "cmake=3.25.1-1"]
results = ["20261122T104102Z-7f3a-zlib"]
layers = ["ghc-9.8", "gcc@0123456789ab"]
"""


def refusal(text: str | bytes) -> str:
    with pytest.raises(RefusedError) as caught:
        request.read(text if isinstance(text, str) else request.decode(text))
    assert caught.value.reply == 550
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_is_understood() -> None:
    read = request.read(ALL)
    assert (read.timeout, read.memory, read.cpus) == (Duration(1800), Size(2**30), 2)
    assert read.env == {"CFLAGS": "-O2 -g"}
    assert read.dependencies.packages == ("build-essential", "cmake=3.25.1-1")
    TERMS.check(read, 2**20)


@pytest.mark.parametrize("text", [ALL, "", 'env = {A = "\\u007f\\n\\\\ \\"q\\" é"}'])
def test_what_is_rendered_says_the_same(text: str) -> None:
    assert request.read(request.render(request.read(text))) == request.read(text)


def test_nothing_asked_for_is_everything_by_default() -> None:
    assert request.read("") == Wishes()
    TERMS.check(Wishes(), 2**30)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tiemout = '3h'", "tiemout: no such key"),
        ("timeout = 3", "timeout: expected"),
        ("timeout = '0s'", "timeout: expected more than zero"),
        ("cpus = 0", "cpus"),
        ("memory = '0B'", "memory"),
        ("run = '../../bin/sh'", "run: expected"),
        ("run = '/bin/sh'", "run: expected"),
        ("name = 'a/b'", "name: expected"),
        ("base = '../x'", "base: expected"),
        ("env = {'A=B' = 'c'}", "env: expected"),
        ("env = {A = 3}", "env"),
        ('env = {A = "a\\u0000b"}', "env: a value"),
        (f"env = {{A = '{'x' * 20_000}'}}", "env: expected at most"),
        ("[dependencies]\npackages = ['a b']", "dependencies.packages: expected"),
        ("[dependencies]\npackages = ['--help']", "dependencies.packages: expected"),
        ("[dependencies]\npackages = ['gcc', 'gcc']", "dependencies.packages: the same"),
        ("[dependencies]\nresults = ['../x']", "dependencies.results: expected"),
        ("[dependencies]\nlayers = ['/etc']", "dependencies.layers: expected"),
        ("[dependencies]\nlayers = ['ghc@latest']", "dependencies.layers: expected"),
        ("[dependencies", "not valid TOML"),
        ("x = " + "[" * 100_000, "not valid TOML"),
    ],
)
def test_mistake_is_refused_by_its_key(text: str, key: str) -> None:
    assert refusal(text).startswith(f"construir.toml: {key}")


def test_text_that_is_not_utf8_is_refused() -> None:
    assert "not UTF-8" in refusal(b"name = '\xff'")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("timeout = '3h'", "timeout: at most 7200 s"),
        ("idle_timeout = '2h'", "idle_timeout: at most"),
        ("cpus = 3", "cpus: at most 2"),
        ("memory = '2GiB'", "memory: at most 1024 MiB"),
        ("space = '600MiB'", "space: at most 512 MiB"),
        (
            "base = 'sid-amd64'",
            "base: there is no base image 'sid-amd64' here; there are: bookworm-amd64, trix",
        ),
    ],
)
def test_more_than_can_be_had_is_refused(text: str, key: str) -> None:
    with pytest.raises(RefusedError, match=f"construir.toml: {key}"):
        TERMS.check(request.read(text), 2**29)
