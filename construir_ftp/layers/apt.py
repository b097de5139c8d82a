"""A base image's Debian archive, as apt sees it from outside: what packages need, and where their files come from.

Each base image has an apt directory of its own, with the package state, the sources and the keys that are in the image;
of the host's apt only the network settings are read, and nothing of it is changed. apt checks the signatures. Nothing
here unpacks a package.
"""

import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from construir_ftp import files, process
from construir_ftp.diskimage import extfs
from construir_ftp.errors import CommandError, RefusedError
from construir_ftp.image.baseimage import BaseImage

log = logging.getLogger(__name__)

# Lists older than that are fetched anew before the next set of packages is resolved.
_LISTS_AGE_S = 86400.0
# An archive that stalls is given up: its lists after so long, at the door sooner, and not asked again for a while.
_LISTS_S, _LISTS_AT_THE_DOOR_S = 300.0, 20.0
_STALL_S, _STALL_AT_THE_DOOR_S = 20, 8
_AGAIN_S = 60.0
# Whoever finds another at it waits so long; at the door for no longer than a person would.
_LOCK_S, _LOCK_AT_THE_DOOR_S = 1800.0, 5.0
# Package files: a start, and then as slow as this, at most.
_FETCH_START_S, _FETCH_RATE_BYTES, _FETCH_S = 120.0, 64 * 1024, 1800.0
_SIMULATE_S = 60.0
_LOOK_S = 0.1
_MOST_NAMED = 5
# Names are no expressions: as of apt(8) since 2.0, for apt-get(8) to be asked for (apt's NEWS, 1.9.6).
_NO_PATTERNS = "--option=APT::Cmd::Pattern-Only=true"
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

    A step is "unpack" or "configure" with the names of the packages. `asked` is what was asked for.
    """

    packages: tuple[Package, ...]
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    asked: tuple[str, ...] = ()

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

    def __init__(self, place: Path, base: BaseImage, at_the_door_s: float = _LISTS_AT_THE_DOOR_S) -> None:
        self._base, self._at_the_door_s = base, at_the_door_s
        self.place = place / base.manifest.digest().removeprefix("sha256:")[:16]

    def refresh(self, *, at_the_door: bool = False) -> None:
        """Fetch the lists of packages, if those here are missing or a day old. Raises CommandError if there are none.

        An archive that fails is not asked again for a minute; meanwhile old lists will do. `at_the_door` they also do
        where another one is fetching, or it takes long.
        """
        if _age_s(self._refreshed) < _LISTS_AGE_S and self._is_prepared():
            return
        has_lists = self._refreshed.exists()
        try:
            with self._alone((0.0 if has_lists else _LOCK_AT_THE_DOOR_S) if at_the_door else _LOCK_S):
                self.prepare()
                if _age_s(self._refreshed) >= _LISTS_AGE_S:
                    self._fetch_lists(at_the_door=at_the_door)
        except CommandError as error:
            if not has_lists:
                raise
            log.warning("the lists of packages of %s stay as old as they are: %s", self._base.name, error)

    def _fetch_lists(self, *, at_the_door: bool) -> None:
        failed = self.place / "failed"
        if _age_s(failed) < _AGAIN_S:
            raise CommandError(f"the archive of {self._base.name} failed less than {_AGAIN_S:g} s ago; try again later")
        stall = [f"--option=Acquire::{way}::Timeout={_STALL_AT_THE_DOOR_S}" for way in ("http", "https")]
        options = [*stall, "--option=Acquire::Retries=0"] if at_the_door else []
        try:
            timeout_s = self._at_the_door_s if at_the_door else _LISTS_S
            self._apt("get", "update", "--error-on=any", *options, timeout_s=timeout_s)
        except CommandError:
            failed.touch()
            raise
        failed.unlink(missing_ok=True)
        self._refreshed.touch()

    @property
    def _refreshed(self) -> Path:
        return self.place / "refreshed"

    def resolve(self, wanted: tuple[str, ...]) -> Plan:
        """What installing the packages `wanted` takes, without what they merely recommend; nothing is fetched.

        Raises RefusedError, naming the package, where one is unknown or can't be installed.
        """
        try:
            asked = self._exactly(wanted)
            said = self._apt("get", "install", "--simulate", _NO_PATTERNS, "--", *asked, timeout_s=_SIMULATE_S)
        except CommandError as error:
            raise RefusedError(f"dependencies.packages: {plainly(error)}") from error
        found = _STEP.findall(said)
        if removed := [name for step, name, _, _ in found if step == "Remv"]:
            raise RefusedError(f"dependencies.packages: can't be had without removing {', '.join(removed)}")
        chosen = {name: (version, architecture) for step, name, version, architecture in found if step == "Inst"}
        steps = _steps([(step, name) for step, name, _, _ in found])
        return Plan(tuple(self._described(chosen)), tuple(steps), wanted)

    def _exactly(self, wanted: tuple[str, ...]) -> list[str]:
        """Packages in apt's words, so that each means itself and nothing else. Raises RefusedError for unknown ones.

        What there is no package of apt takes for an expression (a.+), or, with a + or - behind it, for something to be
        installed or removed (apt-get(8)). A + of ours behind it is what it takes off then.
        """
        known = set(self._apt("cache", "pkgnames", "--all-names", timeout_s=_SIMULATE_S).split())
        names = [name.partition("=")[0] for name in wanted]
        if unknown := [name for name in names if name not in known]:
            there = f"Unable to locate package {', '.join(unknown[:_MOST_NAMED])}"
            raise RefusedError(f"dependencies.packages: {there} in the archive of {self._base.name}")
        return [package if f"{package}+" in known else f"{package}+" for package in wanted]

    def fetch(self, plan: Plan) -> list[Path]:
        """The package files of a plan, in its order, out of the cache or fetched into it. Raises CommandError."""
        # The + is taken off again: see _exactly.
        names = [f"{package.name}={package.version}+" for package in plan.packages]
        timeout_s = min(_FETCH_S, _FETCH_START_S + plan.download_bytes / _FETCH_RATE_BYTES)
        with self._alone(_LOCK_S):
            if names:
                self._apt("get", "install", "--download-only", _NO_PATTERNS, "--", *names, timeout_s=timeout_s)
        debs = [self.place / "archives" / package.file for package in plan.packages]
        if missing := [file.name for file in debs if not file.exists()]:
            raise CommandError(f"apt did not fetch {missing[0]}; try again later")
        return debs

    def _described(self, chosen: dict[str, tuple[str, str]]) -> Iterator[Package]:
        if not chosen:
            return
        asked = [f"{name}={version}" for name, (version, _) in chosen.items()]
        records = self._apt("cache", "show", "--", *asked, timeout_s=_SIMULATE_S).split("\n\n")
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
    def _alone(self, patience_s: float) -> Iterator[None]:
        """Hold the directory. Raises CommandError where another one does for longer than that."""
        self.place.mkdir(parents=True, exist_ok=True)
        deadline_s = time.monotonic() + patience_s
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(files.locked(self.place, wait=False))
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline_s:
                        raise CommandError(
                            f"something is being fetched for {self._base.name}; try again later"
                        ) from error
                    time.sleep(_LOOK_S)
            yield

    def _is_prepared(self) -> bool:
        configuration = self.place / "apt.conf"
        return configuration.exists() and configuration.read_bytes() == self._configuration().encode()

    def prepare(self) -> None:
        """Take out of the base image what apt has to know, unless that was done before, here and on such a host."""
        if self._is_prepared():
            return
        for name in ("lists/partial", "archives/partial", "log"):
            (self.place / name).mkdir(parents=True, exist_ok=True)
        with self._base.root.open("rb") as file:
            image = extfs.Image(file)
            for name in (_STATE, *_SETTINGS):
                _take_out(image, name, self.place / "base" / name)
        files.replace_durably(self.place / "apt.conf", self._configuration().encode())

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
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": str(_STALL_S),
            "Acquire::https::Timeout": str(_STALL_S),
        }
        lines = "".join(f'{key} "{value}";\n' for key, value in settings.items())
        return lines + f'APT::Architectures {{ "{self._base.manifest.architecture}"; }};\n' + _network_settings()


def _age_s(path: Path) -> float:
    """For how long a file has been as it is; for ever if it isn't there, or if the clock was put back since."""
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    return age_s if age_s >= 0 else float("inf")


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
