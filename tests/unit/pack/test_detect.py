"""Promises of init: for each kind of project a run.sh and a construir.toml that can work, and nothing written over."""

import os
from pathlib import Path

import msgspec
import pytest

from construir_ftp import process
from construir_ftp.jobs import request
from construir_ftp.jobs import request as job_request
from construir_ftp.jobs.request import Dependencies, Wishes
from construir_ftp.pack import detect, pack
from tests.support.appliance import construir

_HELLO_C = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
_CONTROL = """Source: hello
Build-Depends: debhelper-compat (= 13), libfoo-dev (>= 1.2) | libbar-dev,
# a comment
 python3:any, gcc-multilib [amd64] <!nocheck>
Standards-Version: 4.6.2

Package: hello
Depends: not-for-the-build
"""
_DSC = f"""Format: 3.0 (quilt)
Source: hello
Architecture: any
Version: 1:2.10-3
Build-Depends: debhelper-compat (= 13), libfoo-dev (>= 1.2) | libbar-dev, gcc-multilib [amd64] <!nocheck>
Checksums-Sha256:
 {64 * "0"} 12 hello_2.10.orig.tar.gz
 {64 * "1"} 34 hello_2.10-3.debian.tar.xz
"""
_KINDS: dict[str, tuple[dict[str, str], set[str], str]] = {
    "a Makefile": ({"Makefile": "hello: hello.c\n", "hello.c": _HELLO_C}, {"gcc", "make", "libc6-dev"}, "make "),
    "CMake": ({"CMakeLists.txt": "project(hello CXX)\n"}, {"cmake", "g++", "make"}, "cmake --build build"),
    "Meson": ({"meson.build": "project('hello', 'cpp')\n", "src/a.cc": ""}, {"meson", "ninja-build", "g++"}, "ninja "),
    "autotools": ({"configure.ac": "AC_INIT([hello], [1])\n"}, {"autoconf", "automake"}, "autoreconf -fi\n./configure"),
    "Rust": ({"Cargo.toml": '[package]\nname = "hello"\n'}, {"cargo"}, "cargo build --release --offline"),
    "Go": ({"go.mod": "module hello\n"}, {"golang-go"}, "go build ./..."),
    "Python": (
        {"pyproject.toml": '[build-system]\nbuild-backend = "hatchling.build"\n'},
        {"python3-pip", "python3-hatchling"},
        "pip wheel --no-index",
    ),
    "npm": ({"package.json": "{}"}, {"nodejs", "npm"}, "npm run build"),
    "a Debian source package": (
        {"debian/control": _CONTROL, "Makefile": ""},
        {"build-essential", "debhelper-compat", "libfoo-dev", "python3", "gcc-multilib"},
        "dpkg-buildpackage",
    ),
    "the source of a Debian package": (
        {"hello_2.10-3.dsc": _DSC, "hello_2.10.orig.tar.gz": ""},
        {"build-essential"},
        "--extract hello_2.10-3.dsc /build/reproducible-path/hello-2.10\n",
    ),
    "no project known here": ({}, set(), "# Replace this by your build.\necho"),
}


def laid_out(place: Path, files: dict[str, str]) -> Path:
    place.mkdir()
    for name, text in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.mark.parametrize("kind", _KINDS)
def test_what_is_written_for_each_kind_is_a_job(tmp_path: Path, kind: str) -> None:
    files, packages, command = _KINDS[kind]
    directory = laid_out(tmp_path / "my project", files)
    sketch, written, kept = detect.write(directory)
    assert (sketch.kind, [path.name for path in written], kept) == (kind, ["run.sh", "construir.toml"], [])
    wanted = request.read((directory / "construir.toml").read_text())
    assert packages <= set(wanted.dependencies.packages)
    assert "not-for-the-build" not in wanted.dependencies.packages
    assert wanted.name == "my-project"
    assert command in (directory / "run.sh").read_text()
    process.run(["sh", "-n", directory / "run.sh"], timeout_s=60)
    assert os.access(directory / "run.sh", os.X_OK)
    pack.pack(directory, tmp_path / "packed", 0)


def test_packages_of_every_kind_are_in_debian(tmp_path: Path) -> None:
    known = set(process.run(["apt-cache", "pkgnames"], timeout_s=60).split())
    if "0ad" not in known:  # the first of Debian's; what is installed is known without lists
        pytest.skip("apt knows no packages here; run: apt-get update")
    for number, (files, _, _) in enumerate(_KINDS.values()):
        sketch = detect.look(
            laid_out(tmp_path / str(number), {**files, "debian/control": ""} if number > 99 else files)
        )
        invented = {"libfoo-dev", "debhelper-compat", "gcc-multilib"}
        assert set(sketch.packages) - invented <= known


def test_an_extension_module_gets_a_compiler(tmp_path: Path) -> None:
    plain = laid_out(tmp_path / "plain", {"setup.py": "from setuptools import setup\nsetup()\n"})
    extended = laid_out(
        tmp_path / "extended", {"setup.py": "setup(ext_modules=[Extension('a', ['a.pyx'])])", "a.pyx": ""}
    )
    assert "gcc" not in detect.look(plain).packages
    assert {"gcc", "python3-dev", "cython3"} <= set(detect.look(extended).packages)


_OUTPUTS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "the target": ({"Makefile": "hello: hello.c\n\tcc -o $@ $<\n"}, ("hello",)),
    "what all needs": ({"Makefile": "CC = gcc\nall: hello lib/libx.a\nhello: hello.o\n"}, ("hello", "lib/libx.a")),
    "a variable": ({"Makefile": "PROG := greet\n.PHONY: build\nbuild: $(PROG)\n$(PROG): x.o\n"}, ("greet",)),
    "no file": ({"Makefile": "all: $(wildcard *.o)\n"}, ()),
    "a pattern": ({"Makefile": "%.o: %.c\n\tcc -c $<\n"}, ()),
    "no rule": ({"Makefile": "include x.mk\n"}, ()),
    "CMake": ({"CMakeLists.txt": "project(x C)\nadd_executable(hello hello.c)\n"}, ("build/hello",)),
    "Meson": ({"meson.build": "project('x', 'c')\nexecutable('hello', 'hello.c')\n"}, ("build/hello",)),
    "automake": ({"configure.ac": "AC_INIT\n", "Makefile.am": "bin_PROGRAMS = hello bye\n"}, ("hello", "bye")),
    "Rust": ({"Cargo.toml": '[package]\nname = "hello"\n', "src/main.rs": ""}, ("target/release/hello",)),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", _OUTPUTS)
def test_what_a_build_makes_is_named_as_outputs(tmp_path: Path, kind: str) -> None:
    files, outputs = _OUTPUTS[kind]
    directory = laid_out(tmp_path / "hello", files)
    said = construir("init", directory, check=True).stdout
    assert request.read((directory / "construir.toml").read_text()).outputs == outputs
    if outputs:
        assert f"its result will have: {', '.join(outputs)}\n" in said
    else:
        assert "name the files that you want of it as outputs in " in said
    assert said.endswith(
        f"\nnext: construir submit {directory};"
        f" or, where an appliance is installed, without a server: construir run {directory}\n"
    )


def test_nothing_is_ever_written_over(tmp_path: Path) -> None:
    directory = laid_out(tmp_path / "job", {"run.sh": "mine", "Makefile": ""})
    said = construir("init", directory, check=True)
    assert said.stdout.splitlines()[:3] == [
        "found: a Makefile",
        f"wrote {directory}/construir.toml",
        f"{directory}/run.sh is there already, and stays as it is",
    ]
    assert (directory / "run.sh").read_text() == "mine"
    (directory / "construir.toml").write_text("mine")
    told = msgspec.json.decode(construir("init", "--json", cwd=directory, check=True).stdout)
    assert (told["written"], told["kept"]) == ([], ["run.sh", "construir.toml"])
    assert (directory / "construir.toml").read_text() == "mine"
    missing = construir("init", tmp_path / "nowhere")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


def test_every_key_is_explained_and_every_example_is_right() -> None:
    explained = {(key.table, key.name) for key in request.KEYS}
    there = {("", name) for name in Wishes.__struct_fields__ if name not in ("env", "dependencies")}
    there |= {("dependencies", name) for name in Dependencies.__struct_fields__}
    assert explained == there | {("env", "CFLAGS")}
    text = "".join(f"{key.table}{'.' if key.table else ''}{key.name} = {key.example}\n" for key in request.KEYS)
    request.read(text.replace('"ID"', '"20261122T104102Z-7f3a-zlib"'))


# Each prints, at its end, what has come of it.
_REAL: dict[str, tuple[dict[str, str], str]] = {
    "a Makefile": ({"Makefile": "hello: hello.c\n\tgcc -o hello hello.c\n", "hello.c": _HELLO_C}, "./hello"),
    "CMake": (
        {
            "CMakeLists.txt": "cmake_minimum_required(VERSION 3.13)\nproject(hello C)\nadd_executable(hello hello.c)\n",
            "hello.c": _HELLO_C,
        },
        "build/hello",
    ),
    "autotools": (
        {
            "configure.ac": "AC_INIT([hello], [1])\nAM_INIT_AUTOMAKE([foreign])\nAC_PROG_CC\n"
            "AC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
            "Makefile.am": "bin_PROGRAMS = hello\nhello_SOURCES = hello.c\n",
            "hello.c": _HELLO_C,
        },
        "./hello",
    ),
    "Python": (
        {
            "setup.py": "from setuptools import Extension, setup\n"
            "setup(name='hello', version='1', ext_modules=[Extension('hello', ['hello.c'])])\n",
            "hello.c": '#include <Python.h>\nstatic struct PyModuleDef it = {PyModuleDef_HEAD_INIT, "hello"};\n'
            'PyMODINIT_FUNC PyInit_hello(void) { puts("hello"); return PyModule_Create(&it); }\n',
        },
        "cd /tmp && python3 -m zipfile -e /job/dist/*.whl . && python3 -c 'import hello'",
    ),
}


@pytest.mark.machine
@pytest.mark.parametrize("kind", _REAL)
def test_what_is_written_really_builds(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    files, ending = _REAL[kind]
    directory = laid_out(tmp_path / "hello", files)
    construir("init", directory, check=True)
    with (directory / "run.sh").open("a") as script:
        script.write(f"{ending}\n")
    if kind == "a Makefile":  # all it needs is in this base image, so that no layer has to be made
        asks = directory / "construir.toml"
        asks.write_text(asks.read_text().replace('# base = "bookworm-amd64"', 'base = "bookworm-amd64-gcc"'))
    elif not request.config.getoption("--all"):
        pytest.skip("installing packages takes minutes under emulation: only with --all")
    wanted = set(job_request.read((directory / "construir.toml").read_text()).outputs)
    said = construir("run", directory, "-o", tmp_path / "result", f"--spool={tmp_path / 'spool'}", timeout_s=1800)
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.splitlines()[-1] == "hello"
    made = msgspec.json.decode((tmp_path / "result/result.json").read_bytes())["artifacts"]
    assert {one["path"].lstrip("/") for one in made} >= {name for name in wanted if "*" not in name}
