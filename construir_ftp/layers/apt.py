"""A base image's Debian archive, as apt sees it from outside: what packages need, and where their files come from.

Each base image has an apt directory of its own, with the package state, the sources and the keys that are in the image
(apt_directory). apt checks the signatures. Nothing here unpacks a package.
"""

import hashlib
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from construir_ftp.errors import CommandError, RefusedError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers.apt_directory import USUAL, AptDirectory, Pace

log = logging.getLogger(__name__)

# Lists older than that are fetched anew before the next set of packages is resolved.
_LISTS_AGE_S = 86400.0
# An archive that stalls is given up: its lists after so long, at the door sooner, and not asked again for a while.
_LISTS_S, _LISTS_AT_THE_DOOR_S = 300.0, 20.0
_STALL_AT_THE_DOOR_S = 8
_AGAIN_S = 60.0
# Whoever finds another at it waits so long; at the door for no longer than a person would.
_LOCK_S, _LOCK_AT_THE_DOOR_S = 1800.0, 5.0
# Package files: a start, and then as slow as this, at most.
_FETCH_START_S, _FETCH_RATE_BYTES, _FETCH_S = 120.0, 64 * 1024, 1800.0
_MOST_NAMED = 5
# Names are no expressions: as of apt(8) since 2.0, for apt-get(8) to be asked for (apt's NEWS, 1.9.6).
_NO_PATTERNS = "--option=APT::Cmd::Pattern-Only=true"
# "Inst libc6-dev (2.36-9 Debian:12 [amd64])", with "[old version]" before it for an upgrade; and of what it conflicts
# with, "Remv busybox-static [1:1.35.0-4]"; apt-get(8), --simulate.
_STEP = re.compile(r"^(Inst|Conf|Remv) (\S+)(?: \[[^]]*\])?(?: \((\S+) [^)]*\[(\S+)\]\))?", re.MULTILINE)
_VERBS = {"Inst": "unpack", "Conf": "configure", "Remv": "remove"}


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

    A step is "unpack", "configure" or "remove" with the names of the packages. What is removed is in the base image,
    and conflicts with what is wanted. `asked` is what was asked for.
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
    """The archive of one base image; its directory in `place` is made at the first use, and shared by processes.

    As soon as `stop` is readable, whatever waits for it ends with a StoppedError.
    """

    def __init__(
        self,
        place: Path,
        base: BaseImage,
        at_the_door_s: float = _LISTS_AT_THE_DOOR_S,
        *,
        pace: Pace = USUAL,
        stop: socket.socket | None = None,
    ) -> None:
        self._base, self._at_the_door_s = base, at_the_door_s
        self.place = place / base.manifest.digest().removeprefix("sha256:")[:16]
        self._apt = AptDirectory(self.place, base, pace, stop)

    def prepare(self) -> None:
        """Make its directory, unless that was done before."""
        self._apt.prepare()

    def refresh(
        self, *, at_the_door: bool = False, aside: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Fetch the lists of packages, if those here are missing or a day old. Raises CommandError if there are none.

        An archive that fails is not asked again for a minute; meanwhile old lists will do. `at_the_door` they also do
        where another one is fetching, or it takes long. It waits within `aside` only.
        """
        if _age_s(self._refreshed) < _LISTS_AGE_S and self._apt.is_prepared():
            return
        has_lists = self._refreshed.exists()
        patience_s = (0.0 if has_lists else _LOCK_AT_THE_DOOR_S) if at_the_door else _LOCK_S
        try:
            with aside(), self._apt.alone(patience_s) as lock:
                self.prepare()
                if _age_s(self._refreshed) >= _LISTS_AGE_S:
                    self._fetch_lists(lock, at_the_door=at_the_door)
        except (CommandError, RefusedError) as error:
            if not has_lists:
                raise
            log.warning("the lists of packages of %s stay as old as they are: %s", self._base.name, error)

    def _fetch_lists(self, lock: int, *, at_the_door: bool) -> None:
        failed = self.place / "failed"
        if _age_s(failed) < _AGAIN_S:
            raise CommandError(f"the archive of {self._base.name} failed less than {_AGAIN_S:g} s ago; try again later")
        stall = [f"--option=Acquire::{way}::Timeout={_STALL_AT_THE_DOOR_S}" for way in ("http", "https")]
        options = [*stall, "--option=Acquire::Retries=0"] if at_the_door else []
        try:
            timeout_s = self._at_the_door_s if at_the_door else _LISTS_S
            self._apt.fetch(lock, "update", "--error-on=any", *options, timeout_s=timeout_s)
        except CommandError as error:
            log.warning("the lists of packages of %s can't be fetched: %s", self._base.name, plainly(error))
            failed.touch()
            raise
        failed.unlink(missing_ok=True)
        self._refreshed.touch()

    @property
    def _refreshed(self) -> Path:
        return self.place / "refreshed"

    def resolve(self, wanted: tuple[str, ...], relations: tuple[str, ...] = ()) -> Plan:
        """What installing the packages `wanted` takes, without what they merely recommend; nothing is fetched.

        `relations` are to be satisfied besides, which are in the words of Build-Depends. Raises RefusedError, naming
        the package, where one is unknown or can't be installed.
        """
        try:
            said = self._satisfied(wanted, relations) if relations else self._installed(wanted)
        except CommandError as error:
            key = "build_depends" if relations else "packages"
            raise RefusedError(f"dependencies.{key}: {plainly(error)}") from error
        found = _STEP.findall(said)
        chosen = {name: (version, architecture) for step, name, version, architecture in found if step == "Inst"}
        steps = _steps([(step, name) for step, name, _, _ in found])
        return Plan(tuple(self._described(chosen)), tuple(steps), wanted + relations)

    def _installed(self, wanted: tuple[str, ...]) -> str:
        """What apt says of how it would install packages."""
        return self._apt.run("get", "install", "--simulate", _NO_PATTERNS, "--", *self._exactly(wanted))

    def _satisfied(self, wanted: tuple[str, ...], relations: tuple[str, ...]) -> str:
        """The same of packages and relations: alternatives, architectures and build profiles are apt's to judge."""
        exact = [re.sub(r"=(.*)", r" (= \1)", package) for package in wanted]
        return self._apt.run("get", "satisfy", "--simulate", "--", *exact, *relations)

    def _exactly(self, wanted: tuple[str, ...]) -> list[str]:
        """Packages in apt's words, so that each means itself and nothing else. Raises RefusedError for unknown ones.

        What there is no package of apt takes for an expression (a.+), or, with a + or - behind it, for something to be
        installed or removed (apt-get(8)). A + of ours behind it is what it takes off then.
        """
        known = set(self._apt.run("cache", "pkgnames", "--all-names").split())
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
        with self._apt.alone(_LOCK_S) as lock:
            if names:
                self._apt.fetch(lock, "install", "--download-only", _NO_PATTERNS, "--", *names, timeout_s=timeout_s)
        debs = [self.place / "archives" / package.file for package in plan.packages]
        if missing := [file.name for file in debs if not file.exists()]:
            raise CommandError(f"apt did not fetch {missing[0]}; try again later")
        return debs

    def _described(self, chosen: dict[str, tuple[str, str]]) -> Iterator[Package]:
        if not chosen:
            return
        asked = [f"{name}={version}" for name, (version, _) in chosen.items()]
        records = self._apt.run("cache", "show", "--", *asked).split("\n\n")
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


def _age_s(path: Path) -> float:
    """For how long a file has been as it is; for ever if it isn't there, or if the clock was put back since."""
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    return age_s if age_s >= 0 else float("inf")


def _steps(found: list[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Neighbours of one kind are one call of dpkg."""
    while found:
        kind = found[0][0]
        same = next((at for at, (step, _) in enumerate(found) if step != kind), len(found))
        yield _VERBS[kind], tuple(name for _, name in found[:same])
        found = found[same:]


def plainly(error: CommandError) -> str:
    """apt's own words for what is wrong, out of the message of a failed command; no path of the host is in them."""
    # The second and further alternatives of a dependency are on lines of their own.
    words = re.sub(r"(\bor)?\n\s*", lambda end: f"{end[1]} " if end[1] else "; ", error.said or str(error)).strip("; ")
    said = re.findall(r"E: ([^;)]*)", words)
    depends = re.findall(r"((?:\S+ : )?(?:Pre)?Depends: [^;]*?) *(?:;|$)", words)
    # What was asked for itself is a package of this name to apt-get satisfy.
    asked = re.findall(r"satisfy:command-line : (.*?) *(?:;|$)", words)
    if asked:
        return "; ".join(asked)[:300]
    plain = " ".join(part.strip() for part in [*said, *depends]) or words
    return re.sub(r"(?<![\w:/.])/[^\s,;'\")]+", "...", plain)[:300]


def name_of(base: BaseImage, plan: Plan, recipe: int) -> str:
    """What the layer of a plan is called: the same for the same packages on the same base image, by the same recipe."""
    words = "\n".join([base.manifest.digest(), base.manifest.architecture, str(recipe), *plan.versions()])
    return "packages-" + hashlib.sha256(words.encode()).hexdigest()[:32]
