"""What a job asks for: construir.toml at the root of its image, and what this appliance grants.

A contributor wrote it, so a mistake is a refusal that names the key; nothing here opens a job. Every key can be left
out. What is granted is bounded by the configuration: see Terms.
"""

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import msgspec

from construir_ftp import architecture, schema
from construir_ftp.errors import ConfigError, RefusedError
from construir_ftp.jobs import names, outputs
from construir_ftp.schema import Positive, Section
from construir_ftp.units import Duration, Size, exactly, plain

FILE = "construir.toml"
# More than anyone writes by hand.
MOST_BYTES = 16 * 1024

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}-[A-Za-z0-9._-]{1,40}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# With the version that a result has recorded, or the latest.
_LAYER = re.compile(rf"{_NAME.pattern}(@[0-9a-f]{{12}})?")
# Debian Policy 5.6.1 (names) and 5.6.12 (versions).
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?")
# What apt-get satisfy takes (apt-get(8)), which is Debian Policy 7.1; a number of them may be in one line.
_RELATION = re.compile(r"(Conflicts: )?[a-z0-9][A-Za-z0-9+.:~ ()<>=!|,\[\]-]{0,399}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The kernel takes no longer path (PATH_MAX), and it begins with /job/.
_PROGRAM = re.compile(r"(?!.{4091})(\./)?[A-Za-z0-9_+-][A-Za-z0-9._+-]*(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)*")
_MOST_ENV_BYTES = 16 * 1024
EPOCH = "SOURCE_DATE_EPOCH"


def _unexpected(key: str, values: tuple[str, ...], pattern: re.Pattern[str], expected: str) -> Iterator[str]:
    """What is wrong with the values of a key, if anything."""
    wrong = [value for value in values if not pattern.fullmatch(value)]
    if wrong:
        yield f"`{key}`: expected {expected}, got {wrong[0][:40]!a}"
    elif len(set(values)) < len(values):
        yield f"`{key}`: the same thing is named twice"


def _demand_none(mistakes: Iterable[str]) -> None:
    """Raises ValueError where there are some: a line for each, which schema tells apart."""
    if told := "\n".join(mistakes):
        raise ValueError(told)


class Dependencies(Section, frozen=True):
    """The table [dependencies]: Debian packages, build dependencies in debian/control's words, ids of earlier results,
    names of published layers.
    """

    packages: Annotated[tuple[str, ...], msgspec.Meta(max_length=500)] = ()
    build_depends: Annotated[tuple[str, ...], msgspec.Meta(max_length=500)] = ()
    results: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()
    layers: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()

    def __post_init__(self) -> None:
        expected = (
            (
                "packages",
                _PACKAGE,
                'names of Debian packages, such as "cmake" or "cmake=3.25.1-1"; no suite, no architecture',
            ),
            (
                "build_depends",
                _RELATION,
                'relations as in debian/control, such as "debhelper-compat (= 13)" or "python3 <!nocheck>"',
            ),
            ("results", _ID, "ids of jobs, as the reply to an upload names them"),
            ("layers", _LAYER, "names of layers, as listed in /layers"),
        )
        _demand_none(
            mistake
            for key, pattern, what in expected
            for mistake in _unexpected(key, getattr(self, key), pattern, what)
        )

    def installs(self) -> tuple[str, ...]:
        """All that is to be installed for it."""
        return self.packages + self.build_depends

    def disks(self) -> int:
        """How many layers and results a machine gets for it, its packages being one."""
        return len(self.results) + len(self.layers) + bool(self.installs())


class Wishes(Section, frozen=True):
    """construir.toml. None and the empty text mean: as this appliance does it by default."""

    above_zero: ClassVar = ("timeout", "idle_timeout", "memory")
    told_characters: ClassVar = 400  # it becomes an FTP reply
    listed_in: ClassVar = "construir.toml(5), or the server's /README.txt,"

    name: str = ""
    run: str = "./run.sh"
    base: str = ""
    architecture: str = ""
    accelerator: Literal["", "kvm", "tcg", "uml"] = ""
    timeout: Duration | None = None
    idle_timeout: Duration | None = None
    cpus: Positive | None = None
    memory: Size | None = None
    space: Size | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    outputs: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    dependencies: Dependencies = Dependencies()

    def __post_init__(self) -> None:
        _demand_none(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        yield from (f"`{key}`: expected more than zero" for key in self.above_zero if getattr(self, key) == 0)
        yield from _unexpected("name", (self.name,) if self.name else (), _NAME, "letters, digits and . _ -")
        yield from _unexpected("base", (self.base,) if self.base else (), _NAME, "the name of a base image")
        if self.architecture and self.architecture not in architecture.KNOWN:
            yield f"`architecture`: expected one of {', '.join(architecture.KNOWN)}"
        yield from _unexpected("run", (self.run,), _PROGRAM, 'a program in the image, such as "./run.sh"')
        if wrong := [pattern for pattern in self.outputs if not outputs.is_pattern(pattern)]:
            yield f"`outputs`: expected paths of files, such as out/*.deb, got {wrong[0][:40]!a}"
        yield from _unexpected("env", tuple(self.env), _VARIABLE, "names of variables, such as CFLAGS")
        if any("\0" in value for value in self.env.values()):
            yield "`env`: a value can't hold a NUL"
        if sum(len(f"{key}={value}".encode()) for key, value in self.env.items()) > _MOST_ENV_BYTES:
            yield f"`env`: expected at most {_MOST_ENV_BYTES} bytes in all"

    def base_name(self, default_base: str) -> str:
        """The base image that it is to run on: without another word the default one, or that of its architecture."""
        if self.base or not self.architecture:
            return self.base or default_base
        words = default_base.split("-")
        return "-".join(self.architecture if word in architecture.KNOWN else word for word in words)


def check_file(*, mode: int, size_bytes: int) -> None:
    """Raises RefusedError if a construir.toml is no regular file (inode(7)), or a larger one than anyone writes."""
    if stat.S_ISLNK(mode):
        raise RefusedError(f"{FILE} is a link; put the file in its place")
    if not stat.S_ISREG(mode) or size_bytes > MOST_BYTES:
        is_directory = " is a directory, and" if stat.S_ISDIR(mode) else ""
        raise RefusedError(f"{FILE}{is_directory} has to be a file of at most {MOST_BYTES >> 10} KiB")


def check_absent(names_beside: Iterable[str]) -> None:
    """Raises RefusedError if there is no construir.toml among these names, but one that is meant to be it."""
    for name in names_beside:
        if name.lower().removesuffix(".txt") == FILE:
            raise RefusedError(f"{FILE} is called {name} here, and would not be read; rename it to {FILE}")


def decode(text: bytes) -> str:
    """The content of a construir.toml as text. Raises RefusedError."""
    try:
        return text.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RefusedError(f"{FILE}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read(text: str) -> Wishes:
    """What a construir.toml says. Raises RefusedError, whose reason names the key and what was expected."""
    try:
        wishes = schema.parse_section(text, FILE, Wishes)
    except ConfigError as error:
        raise RefusedError(str(error)) from error
    if wishes.name:
        names.check_name(wishes.name)
    return wishes


def of_job(text: str, filesystem: str) -> Wishes:
    """What the construir.toml in an image with that file system says. Raises RefusedError."""
    wanted = read(text)
    if wanted.space and not filesystem.startswith("ext"):
        raise RefusedError(f"{FILE}: space: only ext2, ext3 and ext4 images can grow, not {filesystem}")
    return wanted


def dated(wanted: Wishes, newest_s: int) -> Wishes:
    """The same with SOURCE_DATE_EPOCH in its environment, as of its newest file, unless that is not known, or there is
    one already (reproducible-builds.org/specs/source-date-epoch).
    """
    if not newest_s or EPOCH in wanted.env:
        return wanted
    try:
        return msgspec.structs.replace(wanted, env={**wanted.env, EPOCH: str(newest_s)})
    except ValueError:  # there is no room for one more variable
        return wanted


def render(wanted: Wishes) -> str:
    """The text of a construir.toml that says the same; what is left to the appliance is left out."""
    lines = []
    for key in ("name", "run", "base", "architecture", "accelerator"):
        lines.append(f"{key} = {_quoted(getattr(wanted, key))}\n" if getattr(wanted, key) else "")
    for key in ("timeout", "idle_timeout"):
        lines += [f'{key} = "{plain(getattr(wanted, key))}s"\n'] if getattr(wanted, key) else []
    lines.append(f"cpus = {wanted.cpus}\n" if wanted.cpus else "")
    lines += [f'{key} = "{getattr(wanted, key)}B"\n' for key in ("memory", "space") if getattr(wanted, key) is not None]
    lines.append(f"outputs = {_list(wanted.outputs)}\n" if wanted.outputs else "")
    lines += ["[env]\n", *(f"{key} = {_quoted(value)}\n" for key, value in wanted.env.items())] if wanted.env else []
    needs = {key: getattr(wanted.dependencies, key) for key in ("packages", "build_depends", "results", "layers")}
    if any(needs.values()):
        lines += ["[dependencies]\n", *(f"{key} = {_list(names)}\n" for key, names in needs.items() if names)]
    return "".join(lines)


def _quoted(text: str) -> str:
    # JSON's strings are TOML's basic strings, except for DEL (TOML v1.0.0, "String").
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _list(texts: tuple[str, ...]) -> str:
    return "[" + ", ".join(_quoted(text) for text in texts) + "]"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a job may ask for, and the base images there are to choose from."""

    timeout_s: float
    idle_timeout_s: float
    cpus: int
    memory_bytes: int
    image_bytes: int
    bases: tuple[str, ...]

    def check(self, wishes: Wishes, image_bytes: int) -> None:
        """Raises RefusedError, naming the keys, if a job with an image of that size asks for more than it can have."""
        if reasons := self.lacking(wishes, image_bytes):
            raise refusal(reasons)

    def lacking(self, wishes: Wishes, image_bytes: int) -> list[str]:
        """Why it can't have all that it asks for, a line for each key."""
        room_bytes = max(0, self.image_bytes - image_bytes)
        most = {
            "timeout": (wishes.timeout, self.timeout_s, exactly(self.timeout_s)),
            "idle_timeout": (wishes.idle_timeout, self.idle_timeout_s, exactly(self.idle_timeout_s)),
            "cpus": (wishes.cpus, self.cpus, str(self.cpus)),
            "memory": (wishes.memory, self.memory_bytes, f"{self.memory_bytes >> 20} MiB"),
            "space": (wishes.space, room_bytes, f"{room_bytes >> 20} MiB"),
        }
        reasons = [
            f"{key}: at most {in_words} can be had here"
            for key, (asked, limit, in_words) in most.items()
            if asked is not None and asked > limit
        ]
        if wishes.base and wishes.base not in self.bases:
            there = ", ".join(self.bases) or "none"
            reasons.append(f"base: there is no base image {wishes.base!a} here; there are: {there}")
        return reasons


def refusal(reasons: Sequence[str]) -> RefusedError:
    """The refusal of a construir.toml for all of these: whole ones, as many as an FTP reply has room for, and how many
    more there are. The first one has room always.
    """
    told = f"{FILE}: {reasons[0].removeprefix(f'{FILE}: ')}"
    for number, reason in enumerate(reasons[1:], 1):
        longer = f"{told}; {reason.removeprefix(f'{FILE}: ')}"
        if len(longer) > Wishes.told_characters:
            return RefusedError(f"{told}; and {len(reasons) - number} more")
        told = longer
    return RefusedError(told)


# -- keys --------------------------------------------------------------------------------------------------------

# Every key of a job's construir.toml, said once for all who explain them: /README.txt, construir init,
# construir.toml(5).


class Key(NamedTuple):
    """A key: in which table, an example as TOML has it, and what it means."""

    table: str
    name: str
    example: str
    meaning: str


KEYS = (
    Key("", "name", '"hello"', "What the result is called; unless given, what the uploaded file is called."),
    Key("", "run", '"./run.sh"', "The program to run, as root, in /job; ./run.sh unless given."),
    Key("", "base", '"bookworm-amd64"', "The base image to run on, one of the appliance's; unless given, its default."),
    Key("", "architecture", '"amd64"', "Of the default base image, that of this architecture."),
    Key("", "accelerator", '"kvm"', 'How the machine has to run: "kvm", "tcg" (emulated), or "uml" (user-mode Linux).'),
    Key("", "timeout", '"30m"', "The machine is killed after so long; at most the appliance's own limit."),
    Key("", "idle_timeout", '"10m"', "The machine is killed when nothing has been printed for so long."),
    Key("", "cpus", "2", "Processors of the machine."),
    Key("", "memory", '"2GiB"', "Memory of the machine."),
    Key("", "space", '"500MiB"', "Before the run the image grows until so much of it is free."),
    Key("", "outputs", '["out/*.deb"]', "Files that are put into the result as files of their own."),
    Key("env", "CFLAGS", '"-O2"', "Any variable: the environment of the program."),
    Key("dependencies", "packages", '["gcc", "libc6-dev"]', "Packages of the base image's Debian, to be installed."),
    Key("dependencies", "build_depends", '["debhelper-compat (= 13)"]', "What debian/control names as Build-Depends."),
    Key("dependencies", "results", '["ID"]', "Earlier jobs, whose disks are to be read at /deps/NAME."),
    Key("dependencies", "layers", '["ghc-9.8"]', "Layers that the appliance's operator has published."),
)
