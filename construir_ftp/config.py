"""construir.toml -> frozen structs, one section for each part.

Read once, by cli, which hands each part its own section. An unknown key, a missing unit or an
impossible value is a ConfigError naming the file, the key and what was expected. etc/construir.toml
lists every key with its default; a test holds the two together.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec

from construir_ftp.errors import ConfigError

_SIZE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_TIME_UNITS = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


class Size(int):
    """A number of bytes, written with its unit: "512MiB"."""

    expected = f'a number with a unit ({", ".join(_SIZE_UNITS)}), such as "512MiB"'

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "512MiB". Raises ValueError saying what was expected."""
        return cls(_quantity(text, _SIZE_UNITS, cls.expected))


class Duration(float):
    """A number of seconds, written with its unit: "90min"."""

    expected = f'a number with a unit ({", ".join(_TIME_UNITS)}), such as "90min"'

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "90min". Raises ValueError saying what was expected."""
        return cls(_quantity(text, _TIME_UNITS, cls.expected))


def _quantity(text: object, units: Mapping[str, float], expected: str) -> float:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"expected {expected}")
    return float(match[1]) * units[match[2]]


Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of construir.toml."""


class SpoolSection(Section, frozen=True):
    """Where jobs live, and the free space kept clear of uploads."""

    path: str = ""
    min_free: Size = Size.parse("2GiB")


class ImagesSection(Section, frozen=True):
    """Base images: where they live, which is used, where mmdebstrap takes packages from."""

    path: str = ""
    default: str = "bookworm-amd64"
    mirror: str = ""


class FtpSection(Section, frozen=True):
    """The FTP server."""

    address: str = "127.0.0.1"
    port: Port = 2121
    passive_ports: str = ""
    masquerade_address: str = ""
    users: str = ""
    max_upload: Size = Size.parse("2GiB")
    idle_timeout: Duration = Duration.parse("5min")
    max_sessions: Positive = 512
    max_sessions_per_address: Positive = 64


class GateSection(Section, frozen=True):
    """What an upload may be; see gate."""

    filesystems: tuple[Literal["ext2", "ext3", "ext4", "btrfs", "xfs"], ...] = ("ext2", "ext3", "ext4")
    max_image: Size = Size.parse("16GiB")
    max_ratio: Positive = 10_000
    ratio_free: Size = Size.parse("1GiB")
    max_memory: Size = Size.parse("512MiB")
    timeout: Duration = Duration.parse("10min")


class MachineSection(Section, frozen=True):
    """The virtual machine a job runs in."""

    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    memory: Size = Size.parse("1GiB")
    cpus: Positive = 1
    timeout: Duration = Duration.parse("2h")
    boot_timeout: Duration = Duration.parse("2min")
    log_head: Size = Size.parse("1MiB")
    log_tail: Size = Size.parse("1MiB")


class RunnerSection(Section, frozen=True):
    """How many machines at once, how often the queue is looked at unasked, how a stop is made."""

    slots: Count = 0
    scan_every: Duration = Duration.parse("30s")
    grace: Duration = Duration.parse("10s")


class JanitorSection(Section, frozen=True):
    """How long results stay."""

    every: Duration = Duration.parse("10min")
    max_age: Duration = Duration.parse("30d")
    max_total: Size = Size.parse("50GiB")
    max_results: Positive = 10_000
    keep_newest: Count = 1
    incoming_age: Duration = Duration.parse("6h")


S = TypeVar("S", bound=Section)


class Config(Section, frozen=True):
    """The whole of construir.toml."""

    spool: SpoolSection = SpoolSection()
    images: ImagesSection = ImagesSection()
    ftp: FtpSection = FtpSection()
    gate: GateSection = GateSection()
    machine: MachineSection = MachineSection()
    runner: RunnerSection = RunnerSection()
    janitor: JanitorSection = JanitorSection()

    def spool_path(self) -> Path:
        """The spool's directory: as configured, /var/lib/construir as root, else under XDG_STATE_HOME."""
        if self.spool.path:
            return Path(self.spool.path)
        if os.geteuid() == 0:
            return Path("/var/lib/construir")
        return _xdg("XDG_STATE_HOME", ".local/state") / "construir"

    def images_path(self) -> Path:
        """Where base images live: as configured, /var/lib/construir/images as root, else under XDG_CACHE_HOME."""
        if self.images.path:
            return Path(self.images.path)
        if os.geteuid() == 0:
            return Path("/var/lib/construir/images")
        return _xdg("XDG_CACHE_HOME", ".cache") / "construir" / "images"

    def users_path(self) -> Path:
        """The users file: as configured, else users.toml in the spool."""
        return Path(self.ftp.users) if self.ftp.users else self.spool_path() / "users.toml"


def _xdg(variable: str, fallback: str) -> Path:
    # XDG Base Directory Specification: a relative value is to be ignored.
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / fallback


def load(path: Path | None) -> Config:
    """Read a configuration file; without one, every default. Raises ConfigError."""
    return parse(_read(path), str(path)) if path else Config()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error


def parse(text: str, source: str) -> Config:
    """Read the text of a configuration file; `source` is what errors call it. Raises ConfigError."""
    try:
        return convert(tomllib.loads(text), Config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_plainly(str(error))}") from error


def convert(table: dict[str, Any], kind: type[S]) -> S:
    """A table of plain values -> a Section, sizes and durations with their units. Raises msgspec.ValidationError."""
    return msgspec.convert(table, kind, dec_hook=_decode)


def _decode(kind: type, value: object) -> object:
    if issubclass(kind, Size | Duration):
        return kind.parse(value)
    raise NotImplementedError(kind)


def _plainly(message: str) -> str:
    """msgspec's "<what> - at `$.a.b`" -> "a.b: <what>"."""
    what, _, where = message.partition(" - at `$")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    key = where.rstrip("`").lstrip(".")
    if unknown:
        return f"{'.'.join(filter(None, [key, unknown[1]]))}: no such key; etc/construir.toml lists them all"
    return f"{key}: {what[:1].lower()}{what[1:]}" if key else what
