"""What a contributor's directory is a project of, and a run.sh and a construir.toml that suit it.

A machine has no network, so what a build needs comes from Debian, by `packages`, or is in the directory. What is
written is a beginning, to be changed; nothing that is there is ever written over.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from construir_ftp.errors import RefusedError, UsageError
from construir_ftp.jobs import names, request, source_package
from construir_ftp.jobs.request import KEYS

RUN = "run.sh"
_C = ("gcc", "libc6-dev", "make")
_CPP_SUFFIXES = (".cc", ".cpp", ".cxx", ".C")
_BACKENDS = {
    "hatchling": "python3-hatchling",
    "flit_core": "flit",
    "poetry": "python3-poetry-core",
    "mesonpy": "python3-mesonpy",
}
_EXTENSION = re.compile(r"\b(ext_modules|Extension|cythonize|cffi_modules)\b")
# deb822: a field goes on in lines that begin with a space.
_BUILD_DEPENDS = re.compile(r"^Build-Depends(?:-Arch|-Indep)?:((?:.*\n)(?:[ \t].*\n|#.*\n)*)", re.MULTILINE)
# What a build makes, as far as its description says so in plain words.
_MOST_PROGRAMS = 8
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_VARIABLE = re.compile(r"^(\w+)[ \t]*[:?]?=[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"^([^\s#:=][^#:=\n]*?)[ \t]*:(?![=:])([^#=;\n]*)", re.MULTILINE)
_CMAKE_PROGRAM = re.compile(r"^\s*add_executable\s*\(\s*([\w.+-]+)", re.MULTILINE | re.IGNORECASE)
_MESON_PROGRAM = re.compile(r"\bexecutable\s*\(\s*'([^']+)'")
_AUTOMAKE_PROGRAM = re.compile(r"^bin_PROGRAMS[ \t]*\+?=[ \t]*(.*)$", re.MULTILINE)
_CARGO_NAME = re.compile(r'^name\s*=\s*"([\w-]+)"', re.MULTILINE)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")


class Sketch(msgspec.Struct, frozen=True):
    """How a project is built: its kind in words and the commands; for its construir.toml what they need, and make."""

    kind: str
    commands: tuple[str, ...]
    packages: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    build_depends: tuple[str, ...] = ()
    space: str = ""


def look(directory: Path) -> Sketch:
    """What is found there; the most particular kind wins. A directory without any gets a run.sh that says hello."""
    for mark, sketch in _KINDS:
        if any(directory.glob(mark)):
            return sketch(directory)
    return Sketch("no project known here", ("# Replace this by your build.", 'echo "hello from $(uname -sr)"'))


def write(directory: Path) -> tuple[Sketch, list[Path], list[Path]]:
    """Write what is missing of run.sh and construir.toml; what was found, what was written, what was there already.

    Raises UsageError, OSError.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory}: not a directory; make it first, or name the one your project is in")
    sketch = look(directory)
    written, kept = [], []
    for name, text in ((RUN, run_sh(sketch)), (request.FILE, construir_toml(sketch, names.name_of(directory)))):
        path = directory / name
        try:
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError:
            kept.append(path)
            continue
        written.append(path)
        if name == RUN:
            path.chmod(path.stat().st_mode | 0o111)
    return sketch, written, kept


def run_sh(sketch: Sketch) -> str:
    """The text of a run.sh."""
    return (
        "#!/bin/sh\n"
        f"# Found: {sketch.kind}. Runs as root in /job, which is this directory, without a network.\n"
        "set -eux\n" + "".join(f"{command}\n" for command in sketch.commands)
    )


def construir_toml(sketch: Sketch, name: str) -> str:
    """The text of a construir.toml, with all keys there are; those that are not needed as comments."""
    said = {key: getattr(sketch, key) for key in ("packages", "outputs", "build_depends", "space")}
    said["name"] = names.slug(name)
    lines, table = ["# What this job needs. Every key can be left out; construir.toml(5) tells of them all.\n"], ""
    for key in KEYS:
        if key.table != table:
            table = key.table
            lines.append(f"\n[{table}]\n")
        value = said.get(key.name)
        lines.append(f"# {key.meaning}\n")
        lines.append(f"{key.name} = {_toml(value)}\n" if value else f"# {key.name} = {key.example}\n")
    return "".join(lines)


def _toml(value: object) -> str:
    # JSON's strings, and lists of them, are TOML's.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


# -- the kinds -------------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _programs(text: str, pattern: re.Pattern[str], place: str = "") -> tuple[str, ...]:
    """The files, in `place`, that the words are the names of which the pattern finds in a text."""
    words = " ".join(found[found.lastindex or 0] for found in pattern.finditer(text)).split()
    return tuple(dict.fromkeys(f"{place}{word}" for word in words if _FILE.fullmatch(word)))[:_MOST_PROGRAMS]


def _made(makefile: str) -> tuple[str, ...]:
    """What the first rule of a Makefile makes: what `all` or the like depends on, else its own target."""
    variables = dict(_VARIABLE.findall(makefile))
    filled_in = re.sub(r"\$[({](\w+)[)}]", lambda used: variables.get(used[1], used[0]), makefile)
    phony = {name for names in re.findall(r"^\.PHONY\s*:(.*)$", filled_in, re.MULTILINE) for name in names.split()}
    rules = [rule for rule in _RULE.findall(filled_in) if not rule[0].startswith(".")]
    if not rules:
        return ()
    targets, needs = rules[0]
    wanted = needs if {*targets.split()} & {*phony, "all", "default"} else targets
    return _programs(wanted, re.compile(r"(\S+)"))


def _compilers(directory: Path) -> tuple[str, ...]:
    """gcc, and g++ where there is C++."""
    files = (path.suffix for pattern in ("*", "*/*", "*/*/*") for path in directory.glob(pattern))
    return (*_C, "g++") if any(suffix in _CPP_SUFFIXES for suffix in files) else _C


def _debian(directory: Path) -> Sketch:
    control = directory / "debian/control"
    text = control.read_text(errors="replace") if control.is_file() else ""
    # The packages are made in the parent directory, which is not part of the job.
    commands = (
        "dpkg-buildpackage --no-sign --build=binary",
        "mkdir -p out",
        "mv ../*.deb ../*.buildinfo ../*.changes out/",
    )
    needed = dict.fromkeys(("build-essential", *_build_depends(text)))
    return Sketch("a Debian source package", commands, tuple(needed), ("out/*.deb",))


def _source_package(directory: Path) -> Sketch:
    """A .dsc and the files it names, built as Debian's own builders do."""
    dsc = sorted(directory.glob("*.dsc"))[0]
    try:
        source = source_package.parse(dsc.read_bytes())
    except RefusedError as error:
        raise UsageError(f"{dsc}: {error}") from error
    files_bytes = sum(
        (directory / file.name).stat().st_size for file in source.files if (directory / file.name).exists()
    )
    wanted = source_package.wishes(source, "", source_package.space_bytes(files_bytes))
    return Sketch(
        "the source of a Debian package",
        source_package.commands(dsc.name, source),
        wanted.dependencies.packages,
        wanted.outputs,
        wanted.dependencies.build_depends,
        f"{-(-int(wanted.space or 0) >> 20)}MiB",
    )


def _build_depends(control: str) -> Iterator[str]:
    """Names of the packages, the first of several alternatives; what is for other architectures or profiles, too."""
    for field in _BUILD_DEPENDS.finditer(control):
        for relation in re.sub(r"^#.*\n", "", field[1], flags=re.MULTILINE).split(","):
            if name := _PACKAGE.match(relation.strip()):
                yield name[0]


def _cmake(directory: Path) -> Sketch:
    commands = ("cmake -S . -B build -DCMAKE_BUILD_TYPE=Release", 'cmake --build build --parallel "$(nproc)"')
    made = _programs(_read(directory / "CMakeLists.txt"), _CMAKE_PROGRAM, "build/")
    return Sketch("CMake", (*commands, "# ctest --test-dir build --output-on-failure"), (*_C, "cmake", "g++"), made)


def _meson(directory: Path) -> Sketch:
    commands = ("meson setup build --wrap-mode=nodownload", "ninja -C build", "# meson test -C build")
    made = _programs(_read(directory / "meson.build"), _MESON_PROGRAM, "build/")
    return Sketch("Meson", commands, ("meson", "ninja-build", *_compilers(directory)), made)


def _autotools(directory: Path) -> Sketch:
    made = (directory / "configure").is_file()
    packages = _compilers(directory) if made else (*_compilers(directory), "autoconf", "automake", "libtool")
    commands = ("./configure", 'make -j"$(nproc)"', "# make check")
    programs = _programs(_read(directory / "Makefile.am"), _AUTOMAKE_PROGRAM)
    return Sketch("autotools", commands if made else ("autoreconf -fi", *commands), packages, programs)


def _make(directory: Path) -> Sketch:
    makefiles = [directory / name for name in ("GNUmakefile", "makefile", "Makefile")]
    makefile = next(filter(None, map(_read, makefiles)), "")
    return Sketch("a Makefile", ('make -j"$(nproc)"',), _compilers(directory), _made(makefile))


def _cargo(directory: Path) -> Sketch:
    note = "# Crates can't be fetched in the machine: `cargo vendor` puts them here, and .cargo/config.toml says so."
    made = _programs(_read(directory / "Cargo.toml"), _CARGO_NAME, "target/release/")
    programs = made if (directory / "src/main.rs").is_file() or (directory / "src/bin").is_dir() else ()
    return Sketch("Rust", (note, "cargo build --release --offline"), ("cargo", "gcc", "libc6-dev"), programs)


def _go(directory: Path) -> Sketch:
    note = "# Modules can't be fetched in the machine: put them here with `go mod vendor`."
    commands = (
        "export GOFLAGS=-buildvcs=false GOPROXY=off GOTOOLCHAIN=local HOME=/root",
        "go build ./...",
        "# go test ./...",
    )
    return Sketch("Go", (note, *commands), ("golang-go", "gcc", "libc6-dev"))


def _python(directory: Path) -> Sketch:
    backend, text = _python_backend(directory)
    compiled = backend == "mesonpy" or _EXTENSION.search(text) is not None
    packages = ("python3-pip", "python3-setuptools", "python3-wheel", *filter(None, (_BACKENDS.get(backend),)))
    packages += ("python3-dev", "gcc", "libc6-dev") if compiled else ()
    packages += ("cython3",) if any(directory.rglob("*.pyx")) else ()
    command = "python3 -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist ."
    return Sketch("Python", (command, "ls -l dist"), packages, ("dist/*.whl",))


def _python_backend(directory: Path) -> tuple[str, str]:
    """The first part of the build backend's name, and the text of what says how to build."""
    paths = [directory / name for name in ("pyproject.toml", "setup.py", "setup.cfg")]
    text = {path.name: path.read_text(errors="replace") for path in paths if path.is_file()}
    try:
        system = tomllib.loads(text.get("pyproject.toml", "")).get("build-system", {})
    except (ValueError, RecursionError):
        system = {}
    system = system if isinstance(system, dict) else {}
    return str(system.get("build-backend", "setuptools")).partition(".")[0], "\n".join(text.values())


def _npm(directory: Path) -> Sketch:
    note = "# Packages can't be fetched in the machine: run `npm ci` here first, and pack with --everything."
    return Sketch(
        "npm", (note, "npm run build --if-present --offline", "npm test --if-present --offline"), ("nodejs", "npm")
    )


_KINDS: tuple[tuple[str, Callable[[Path], Sketch]], ...] = (
    ("debian/control", _debian),
    ("*.dsc", _source_package),
    ("CMakeLists.txt", _cmake),
    ("meson.build", _meson),
    ("Cargo.toml", _cargo),
    ("go.mod", _go),
    ("pyproject.toml", _python),
    ("setup.py", _python),
    ("package.json", _npm),
    ("configure", _autotools),
    ("configure.ac", _autotools),
    ("GNUmakefile", _make),
    ("[Mm]akefile", _make),
)
