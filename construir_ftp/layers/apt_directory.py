"""A base image's apt directory: what apt has to know of the image, and apt at work there.

Of the host's apt only the network settings are read, and nothing of it is changed. One at a time fetches. What
comes too slowly is given up as the archive's failure, and named with its host; all of it ends when it is told to stop.
"""

import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from construir_ftp import files, process
from construir_ftp.diskimage import extfs
from construir_ftp.errors import CommandError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers import waiting

# apt's own patience with an archive that says nothing.
_STALL_S = 20
_SIMULATE_S = 60.0
_LOOK_S = 1.0
# The deadline of what is fetched is kept here, so that the archive can be named; apt itself has so much longer.
_LATER_S = 10.0
# What is taken out of the base image, to be seen by apt.
_STATE = "var/lib/dpkg/status"
_SETTINGS = ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "etc/apt/preferences.d")
_LOCK = ".lock"
# Where the files grow that apt fetches.
_GROWING = ("lists", "lists/partial", "archives", "archives/partial")


class Pace(msgspec.Struct, frozen=True):
    """The least that has to come of an archive: so many bytes per second, in each window of so many seconds."""

    least_bytes_per_s: int = 1024
    window_s: float = 60.0


USUAL = Pace()


class SlowError(CommandError):
    """Less has come than the pace demands, or not all of it in time."""


class AptDirectory:
    """One base image's; made by `prepare`, and shared by processes. As soon as `stop` is readable, what waits ends."""

    def __init__(self, path: Path, base: BaseImage, pace: Pace, stop: socket.socket | None) -> None:
        self.path, self._base, self._pace, self._stop = path, base, pace, stop

    def run(self, tool: str, *arguments: str, timeout_s: float = _SIMULATE_S) -> str:
        """What an apt tool prints that fetches nothing. Raises CommandError, StoppedError."""
        return self._run(tool, *arguments, timeout_s=timeout_s)

    def fetch(self, lock: int, *arguments: str, timeout_s: float) -> None:
        """Have apt-get fetch something, which holds the lock of `alone` for as long as it runs, and ends with us.

        Raises CommandError, which names the host if that is too slow; StoppedError.
        """
        progress = Progress([self.path / name for name in _GROWING], self._pace, timeout_s)
        try:
            self._run("get", *arguments, timeout_s=timeout_s + _LATER_S, progress=progress, lock=lock)
        except SlowError as error:
            raise SlowError(f"the package archive ({self._hosts(arguments)}) {error}") from error

    def _run(
        self,
        tool: str,
        *arguments: str,
        timeout_s: float,
        progress: "Progress | None" = None,
        lock: int | None = None,
    ) -> str:
        def meanwhile() -> None:
            waiting.demand_not_stopped(self._stop)
            if progress is not None:
                progress.demand()

        env = process.environment(APT_CONFIG=str(self.path / "apt.conf"), DEBIAN_FRONTEND="noninteractive")
        return process.run([f"apt-{tool}", *arguments], timeout_s=timeout_s, env=env, meanwhile=meanwhile, lock=lock)

    def _hosts(self, arguments: tuple[str, ...]) -> str:
        """Where a command of apt-get would fetch from."""
        said = self.run("get", "--print-uris", *arguments)
        hosts = {urlsplit(uri).hostname for uri in re.findall(r"^'([^']+)'", said, re.MULTILINE)}
        return ", ".join(sorted(host for host in hosts if host)) or "on this disk"

    @contextmanager
    def alone(self, patience_s: float) -> Iterator[int]:
        """Hold the directory; gives the lock, for `fetch`.

        Raises CommandError where another one does for longer than that; StoppedError.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        late = f"something is being fetched for {self._base.name}; try again later"
        with waiting.locked(self.path / _LOCK, self._stop, patience_s, late) as lock:
            yield lock

    def is_prepared(self) -> bool:
        """Whether `prepare` has been here, for such a base image and on such a host."""
        configuration = self.path / "apt.conf"
        return configuration.exists() and configuration.read_bytes() == self._configuration().encode()

    def prepare(self) -> None:
        """Take out of the base image what apt has to know, unless that was done before, here and on such a host."""
        if self.is_prepared():
            return
        for name in ("lists/partial", "archives/partial", "log"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        with self._base.root.open("rb") as file:
            image = extfs.Image(file)
            for name in (_STATE, *_SETTINGS):
                _take_out(image, name, self.path / "base" / name)
        files.replace_durably(self.path / "apt.conf", self._configuration().encode())

    def _configuration(self) -> str:
        base, root = self.path / "base", self.path
        settings = {
            "APT::Architecture": self._base.manifest.architecture,
            "APT::Install-Recommends": "false",
            "APT::Get::Assume-Yes": "true",
            "APT::Sandbox::User": "",
            "Debug::NoLocking": "true",  # ours is taken: see alone
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


class Progress:
    """What has come into files in some directories since this was made, or since a window of the pace began."""

    def __init__(self, directories: list[Path], pace: Pace, timeout_s: float) -> None:
        self._directories, self._pace, self._timeout_s = directories, pace, timeout_s
        self._begun_s = self._window_s = self._looked_s = time.monotonic()
        self._sizes = dict(self._files())
        self._come_bytes = 0

    def demand(self) -> None:
        """Raises SlowError if less has come in a window than the pace demands, or if it is late."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        self._look()
        if now_s - self._begun_s > self._timeout_s:
            raise SlowError(f"was not done after {self._timeout_s:g} s; try again later")
        if now_s - self._window_s < self._pace.window_s:
            return
        if self._come_bytes < self._pace.least_bytes_per_s * self._pace.window_s:
            raise SlowError(f"sent {self._come_bytes} bytes in {now_s - self._window_s:.0f} s; try again later")
        self._window_s, self._come_bytes = now_s, 0

    def _look(self) -> None:
        sizes = dict(self._files())
        self._come_bytes += sum(max(0, size - self._sizes.get(inode, 0)) for inode, size in sizes.items())
        self._sizes = sizes

    def _files(self) -> Iterator[tuple[int, int]]:
        """The inode and size in bytes of each; by its inode a file is known that gets another name."""
        for directory in self._directories:
            for path in directory.iterdir() if directory.is_dir() else ():
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield status.st_ino, status.st_size


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
