"""construir.toml -> frozen structs, one section for each part.

Read once, by cli, which hands each part its own section. An unknown key, a missing unit or an
impossible value is a ConfigError naming the file, the key and what was expected. etc/construir.toml
lists every key with its default; a test holds the two together.
"""

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from construir_ftp import home
from construir_ftp.schema import Count, Port, Positive, Section, parse_section, read_text
from construir_ftp.surroundings import NodesSection, NotifySection, SiteSection, SlurmSection
from construir_ftp.units import Duration, Hours, Size

# Base images of an appliance that runs as root, or came as a Debian package.
APPLIANCE_IMAGES = Path("/var/lib/construir/images")
# Where an appliance that was installed has its configuration.
APPLIANCE_CONFIG = Path("/etc/construir/construir.toml")

Filesystems = Annotated[tuple[Literal["ext2", "ext3", "ext4", "btrfs", "xfs"], ...], msgspec.Meta(min_length=1)]


class SpoolSection(Section, frozen=True):
    """Where jobs live, and the free space kept clear of uploads."""

    paths: ClassVar = ("path",)

    path: str = ""
    min_free: Size = Size.parse("2GiB")


class ImagesSection(Section, frozen=True):
    """Base images: where they live, which are used, where mmdebstrap takes packages from."""

    paths: ClassVar = ("path", "keyring", "ubuntu_keyring")

    path: str = ""
    default: str = "bookworm-amd64"
    keep: tuple[str, ...] = ()
    keep_for_results: Count = 3
    mirror: str = ""
    keyring: str = ""
    ubuntu_mirror: str = ""
    ubuntu_keyring: str = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    snapshot_mirror: str = ""
    uml_source: str = "forky"
    refresh: Duration = Duration(0)


class FtpSection(Section, frozen=True):
    """The FTP server."""

    paths: ClassVar = ("users",)
    above_zero: ClassVar = (
        "max_upload",
        "max_waiting",
        "idle_timeout",
        "upload_timeout",
        "upload_rate_window",
        "login_timeout",
        "wrong_password_pause",
        "max_wrong_password_pause",
    )

    address: str = "127.0.0.1"
    port: Port = 2121
    passive_ports: str = ""
    masquerade_address: str = ""
    users: str = ""
    max_upload: Size = Size.parse("2GiB")
    max_waiting_jobs: Positive = 1000
    max_waiting: Size = Size.parse("20GiB")
    max_partial_files: Count = 16
    max_partial: Size = Size.parse("4GiB")
    idle_timeout: Duration = Duration.parse("5min")
    upload_timeout: Duration = Duration.parse("12h")
    min_upload_rate: Size = Size.parse("1KiB")
    upload_rate_window: Duration = Duration.parse("1min")
    login_timeout: Duration = Duration.parse("1min")
    wrong_password_pause: Duration = Duration.parse("1s")
    max_wrong_password_pause: Duration = Duration.parse("5min")
    max_sessions: Positive = 512
    max_sessions_per_address: Positive = 64
    max_sessions_per_contributor: Positive = 32
    max_command_rate: Positive = 1000


class TlsSection(Section, frozen=True):
    """TLS for the FTP server; none without a certificate."""

    paths: ClassVar = ("certificate", "key")

    certificate: str = ""
    key: str = ""
    require_tls: bool = False
    implicit: bool = False
    implicit_port: Port = 990

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("key", "require_tls", "implicit"):
            if getattr(self, key) and not self.certificate:
                raise ValueError(f"`{key}`: expected tls.certificate beside it")

    def files(self) -> tuple[Path, Path] | None:
        """Certificate and key, which may be in one file; None is no TLS."""
        return (Path(self.certificate), Path(self.key or self.certificate)) if self.certificate else None


class GateSection(Section, frozen=True):
    """What an upload may be; see intake."""

    above_zero: ClassVar = ("max_image", "max_memory", "timeout")

    filesystems: Filesystems = ("ext2", "ext3", "ext4")
    max_image: Size = Size.parse("16GiB")
    max_ratio: Positive = 50_000
    ratio_free: Size = Size.parse("1GiB")
    max_memory: Size = Size.parse("512MiB")
    timeout: Duration = Duration.parse("10min")


class MachineSection(Section, frozen=True):
    """The virtual machine a job runs in."""

    programs: ClassVar = ("qemu",)
    above_zero: ClassVar = ("memory", "scratch", "timeout", "idle_timeout", "boot_timeout", "mount_timeout")

    qemu: str = ""
    accelerator: Literal["auto", "kvm", "tcg", "uml"] = "auto"
    memory: Size = Size.parse("1GiB")
    cpus: Positive = 1
    scratch: Size = Size.parse("1GiB")
    max_memory: Size = Size.parse("4GiB")
    max_cpus: Positive = 4
    warm: bool = True
    timeout: Duration = Duration.parse("2h")
    idle_timeout: Duration = Duration.parse("30min")
    boot_timeout: Duration = Duration.parse("2min")
    mount_timeout: Duration = Duration.parse("5min")
    log_head: Size = Size.parse("1MiB")
    log_tail: Size = Size.parse("1MiB")


class RunnerSection(Section, frozen=True):
    """How many machines at once, when, and at whose cost; how often the queue is looked at; how a stop is made."""

    above_zero: ClassVar = ("scan_every",)

    slots: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    waiting: Count = 16
    scan_every: Duration = Duration.parse("30s")
    grace: Duration = Duration.parse("10s")
    when: Literal["always", "idle"] = "always"
    busy: Annotated[int, msgspec.Meta(ge=1, le=100)] = 25
    away: Duration = Duration.parse("5min")
    hours: Hours = Hours()
    priority: Literal["normal", "low"] = "normal"


class LayersSection(Section, frozen=True):
    """What jobs can depend on; see offer and layers."""

    above_zero: ClassVar = ("max_installed", "max_total", "timeout", "fetch_rate_window")

    packages: bool = True
    installs: Positive = 1
    max_installed: Size = Size.parse("4GiB")
    max_total: Size = Size.parse("20GiB")
    timeout: Duration = Duration.parse("1h")
    min_fetch_rate: Size = Size.parse("1KiB")
    fetch_rate_window: Duration = Duration.parse("60s")


class ArtifactsSection(Section, frozen=True):
    """What of a job's `outputs` is put into its result as files; see artifacts."""

    above_zero: ClassVar = ("timeout",)

    max_files: Count = 1000
    max_total: Size = Size.parse("1GiB")
    timeout: Duration = Duration.parse("10min")


class ResultsSection(Section, frozen=True):
    """What results hold beside what the job left."""

    keep_upload: Size = Size(0)


class TrustSection(Section, frozen=True):
    """The key that results are signed with, and who signs; see trust."""

    paths: ClassVar = ("key",)

    key: str = ""
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.-]*\Z")] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key and not Path(self.key).is_absolute():
            raise ValueError("`key`: expected an absolute path")


class JailSection(Section, frozen=True):
    """What machines, and programs that read uploads, are locked into; see jail."""

    require_jail: bool = False
    # The last one, 2^32 - 1, is none (chown(2)).
    first_uid: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 2)] = 1_900_000_000
    uids: Positive = 256


class JanitorSection(Section, frozen=True):
    """How long results stay; see janitor."""

    above_zero: ClassVar = ("every",)

    every: Duration = Duration.parse("10min")
    max_age: Duration = Duration.parse("30d")
    max_total: Size = Size.parse("50GiB")
    max_results: Positive = 10_000
    keep_newest: Count = 1
    incoming_age: Duration = Duration.parse("6h")


class Config(Section, frozen=True):
    """The whole of construir.toml."""

    spool: SpoolSection = SpoolSection()
    images: ImagesSection = ImagesSection()
    ftp: FtpSection = FtpSection()
    tls: TlsSection = TlsSection()
    gate: GateSection = GateSection()
    machine: MachineSection = MachineSection()
    runner: RunnerSection = RunnerSection()
    layers: LayersSection = LayersSection()
    artifacts: ArtifactsSection = ArtifactsSection()
    results: ResultsSection = ResultsSection()
    trust: TrustSection = TrustSection()
    jail: JailSection = JailSection()
    janitor: JanitorSection = JanitorSection()
    notify: NotifySection = NotifySection()
    site: SiteSection = SiteSection()
    nodes: NodesSection = NodesSection()
    slurm: SlurmSection = SlurmSection()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tls.implicit and self.tls.implicit_port == self.ftp.port != 0:
            raise ValueError("`tls.implicit_port`: expected another port than ftp.port")

    def spool_path(self) -> Path:
        """The spool's directory: as configured, /var/lib/construir as root, else under XDG_STATE_HOME."""
        if self.spool.path:
            return Path(self.spool.path)
        if os.geteuid() == 0:
            return Path("/var/lib/construir")
        return home.place("XDG_STATE_HOME", ".local/state", needed=True) / "construir"

    def images_path(self) -> Path:
        """Where base images live: as configured, /var/lib/construir/images as root, else under XDG_CACHE_HOME."""
        if self.images.path:
            return Path(self.images.path)
        if os.geteuid() == 0:
            return APPLIANCE_IMAGES
        return home.place("XDG_CACHE_HOME", ".cache", needed=True) / "construir" / "images"

    def site_path(self) -> Path:
        """The directory of the pages: as configured, else site/ in the spool."""
        return Path(self.site.path) if self.site.path else self.spool_path() / "site"

    def users_path(self) -> Path:
        """The users file: as configured, else users.toml in the spool."""
        return Path(self.ftp.users) if self.ftp.users else self.spool_path() / "users.toml"


def load(path: Path | None) -> Config:
    """Read a configuration file; without one, every default. A path in it that is not absolute begins in the file's
    directory. Raises ConfigError.
    """
    return parse_section(read_text(path), str(path), Config, path.absolute().parent) if path else Config()


def parse(text: str, source: str) -> Config:
    """Read the text of a configuration that is in no file; `source` is what errors call it. Raises ConfigError."""
    return parse_section(text, source, Config)
