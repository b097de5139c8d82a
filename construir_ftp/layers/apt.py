"""A base image's Debian archive, as apt sees it from outside: what packages need, and where their files come from.

Each base image has an apt directory of its own, with the package state, the sources and the keys that are in the image;
of the host's apt only the network settings are read, and nothing of it is changed. apt checks the signatures. Nothing
here unpacks a package.
"""

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from construir_ftp import files, process
from construir_ftp.diskimage import extfs
from construir_ftp.errors import CommandError, RefusedError
from construir_ftp.image.baseimage import BaseImage

# Lists older than that are fetched anew before the next set of packages is resolved.
_LISTS_AGE_S = 86400.0
_FETCH_S = 1800.0
_SIMULATE_S = 60.0
# What is taken out of the base image, to be seen by apt.
_STATE = "var/lib/dpkg/status"
_SETTINGS = ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "etc/apt/preferences.d")
# "Inst libc6-dev (2.36-9 Debian:12 [amd64])", with "[old version]" before it for an upgrade; apt-get(8), --simulate.
_STEP = re.compile(r"(Inst|Conf|Remv) (\S+)(?: \[[^]]*\])? \((\S+) [^)]*\[(\S+)\]\)")


class Package(msgspec.Struct, frozen=True):
    """One package to be installed; `file` is its name in the cache, sizes in bytes."""

    name: str
    version: str
    architecture: str
    file: str
    download_bytes: int
    installed_bytes: int

    @property
    def label(self) -> str:
        """What it is called in lists: name:architecture=version."""
        return f"{self.name}:{self.architecture}={self.version}"


class Plan(msgspec.Struct, frozen=True):
    """What a set of packages comes to: all that has to be installed, and dpkg's steps to do so, in their order.

    A step is "unpack" or "configure" with the names of the packages.
    """

    packages: tuple[Package, ...]
    steps: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def download_bytes(self) -> int:
        """Of all package files together."""
        return sum(package.download_bytes for package in self.packages)

    @property
    def installed_bytes(self) -> int:
        """As the packages themselves estimate it."""
        return sum(package.installed_bytes for package in self.packages)

    def versions(self) -> list[str]:
        """Sorted name=version: what makes a layer another one."""
        return sorted(package.label for package in self.packages)


class Archive:
    """The archive of one base image; its directory in `place` is made at the first use, and shared by processes."""

    def __init__(self, place: Path, base: BaseImage) -> None:
        self._base = base
        self.place = place / base.manifest.digest().removeprefix("sha256:")[:16]

    def refresh(self) -> None:
        """Fetch the lists of packages, if those here are missing or a day old. Raises CommandError."""
        with self._alone():
            self.prepare()
            stamp = self.place / "refreshed"
            if not stamp.exists() or time.time() - stamp.stat().st_mtime > _LISTS_AGE_S:
                self._apt("get", "update", "--error-on=any", timeout_s=_FETCH_S)
                stamp.touch()

    def resolve(self, wanted: tuple[str, ...]) -> Plan:
        """What installing the packages `wanted` takes, without what they merely recommend; nothing is fetched.

        Raises RefusedError, naming the package, where one is unknown or can't be installed.
        """
        try:
            said = self._apt("get", "install", "--simulate", *wanted, timeout_s=_SIMULATE_S)
        except CommandError as error:
            raise RefusedError(f"dependencies.packages: {plainly(error)}") from error
        found = _STEP.findall(said)
        if removed := [name for step, name, _, _ in found if step == "Remv"]:
            raise RefusedError(f"dependencies.packages: can't be had without removing {', '.join(removed)}")
        chosen = {name: (version, architecture) for step, name, version, architecture in found if step == "Inst"}
        return Plan(tuple(self._described(chosen)), tuple(_steps([(step, name) for step, name, _, _ in found])))

    def fetch(self, plan: Plan) -> list[Path]:
        """The package files of a plan, in its order, out of the cache or fetched into it. Raises CommandError."""
        names = [f"{package.name}={package.version}" for package in plan.packages]
        with self._alone():
            if names:
                self._apt("get", "install", "--download-only", *names, timeout_s=_FETCH_S)
        debs = [self.place / "archives" / package.file for package in plan.packages]
        if missing := [file.name for file in debs if not file.exists()]:
            raise CommandError(f"apt did not fetch {missing[0]}; try again later")
        return debs

    def _described(self, chosen: dict[str, tuple[str, str]]) -> Iterator[Package]:
        if not chosen:
            return
        asked = [f"{name}={version}" for name, (version, _) in chosen.items()]
        records = self._apt("cache", "show", *asked, timeout_s=_SIMULATE_S).split("\n\n")
        fields = [dict(re.findall(r"^([A-Z][\w-]*): (.*)$", record, re.MULTILINE)) for record in records]
        known = {(record["Package"], record["Version"]): record for record in fields if "Package" in record}
        for name, (version, architecture) in chosen.items():
            record = known[name.partition(":")[0], version]
            yield Package(
                name=name.partition(":")[0],
                version=version,
                architecture=architecture,
                file=f"{record['Package']}_{version.replace(':', '%3a')}_{record['Architecture']}.deb",
                download_bytes=int(record["Size"]),
                installed_bytes=int(record.get("Installed-Size", 0)) * 1024,
            )

    # -- the directory -----------------------------------------------------------------------------------------

    def _apt(self, tool: str, *arguments: str, timeout_s: float) -> str:
        env = process.environment(APT_CONFIG=str(self.place / "apt.conf"), DEBIAN_FRONTEND="noninteractive")
        return process.run([f"apt-{tool}", *arguments], timeout_s=timeout_s, env=env)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.place.mkdir(parents=True, exist_ok=True)
        with files.locked(self.place):
            yield

    def prepare(self) -> None:
        """Take out of the base image what apt has to know, unless that was done before, here and on such a host."""
        configuration, wanted = self.place / "apt.conf", self._configuration().encode()
        if configuration.exists() and configuration.read_bytes() == wanted:
            return
        for name in ("lists/partial", "archives/partial", "log"):
            (self.place / name).mkdir(parents=True, exist_ok=True)
        with self._base.root.open("rb") as file:
            image = extfs.Image(file)
            for name in (_STATE, *_SETTINGS):
                _take_out(image, name, self.place / "base" / name)
        files.replace_durably(configuration, wanted)

    def _configuration(self) -> str:
        base, root = self.place / "base", self.place
        settings = {
            "APT::Architecture": self._base.manifest.architecture,
            "APT::Install-Recommends": "false",
            "APT::Get::Assume-Yes": "true",
            "APT::Sandbox::User": "",
            "Debug::NoLocking": "true",  # ours is taken: see _alone
            "Dir::Etc": str(base / "etc/apt"),
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::Parts": "/dev/null",
            "Dir::State": str(root),
            "Dir::State::Lists": str(root / "lists"),
            "Dir::State::Status": str(base / _STATE),
            "Dir::Cache": str(root),
            "Dir::Cache::Archives": str(root / "archives"),
            "Dir::Log": str(root / "log"),
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines = "".join(f'{key} "{value}";\n' for key, value in settings.items())
        return lines + f'APT::Architectures {{ "{self._base.manifest.architecture}"; }};\n' + _network_settings()


def _network_settings() -> str:
    """The host's proxies and the like, which any program on it has to know."""
    said = process.run(["apt-config", "dump"], timeout_s=_SIMULATE_S)
    return "".join(f"{line}\n" for line in said.splitlines() if re.match(r"Acquire::(https?|tor)\b.*[^:] \"", line))


def _take_out(image: extfs.Image, name: str, target: Path) -> None:
    """Copy a file, or the files in a directory, out of a base image; what isn't there is left out."""
    inode = image.find(*name.encode().split(b"/"))
    if inode is None:
        return
    if inode.kind == stat.S_IFREG:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image.text(inode))
    elif inode.kind == stat.S_IFDIR:
        target.mkdir(parents=True, exist_ok=True)
        inodes = {entry: image.inode(number) for entry, number in image.entries(inode)}
        for entry, file in inodes.items():
            if file.kind == stat.S_IFREG:
                (target / os.fsdecode(entry)).write_bytes(image.text(file))


def _steps(found: list[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Neighbours of one kind are one call of dpkg."""
    verbs = {"Inst": "unpack", "Conf": "configure"}
    while found:
        kind = found[0][0]
        same = next((at for at, (step, _) in enumerate(found) if step != kind), len(found))
        yield verbs[kind], tuple(name for _, name in found[:same])
        found = found[same:]


def plainly(error: CommandError) -> str:
    """apt's own words for what is wrong, out of the message of a failed command; no path of the host is in them."""
    words = str(error)
    said = re.findall(r"E: ([^;)]*)", words)
    depends = re.findall(r"((?:\S+ : )?(?:Pre)?Depends: [^;]*?) *(?:;|$)", words)
    plain = " ".join(part.strip() for part in [*said, *depends]) or words
    return re.sub(r"(?<![\w:/.])/[^\s,;'\")]+", "...", plain)[:300]


def name_of(base: BaseImage, plan: Plan, recipe: int) -> str:
    """What the layer of a plan is called: the same for the same packages on the same base image, by the same recipe."""
    words = "\n".join([base.manifest.digest(), base.manifest.architecture, str(recipe), *plan.versions()])
    return "packages-" + hashlib.sha256(words.encode()).hexdigest()[:32]
