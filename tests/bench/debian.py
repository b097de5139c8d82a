"""Debian's own packages: built anew by jobs, and compared with the archive's, byte for byte.

Each source is the newest in the archive of the configured base image. It is fetched with its .deb files, made a job by
`construir init`, and run by `construir run`. Not compared are packages of debugging symbols, which have an archive of
their own. Of a .deb that differs is said in which files, and in which sections of an executable.

SOURCE may have a version, `ca-certificates=20230311+deb12u1`. With --explain a source that differs is built again, with
names in the compiler, and then in the C library's headers too, as they were in packages that the archive no longer has;
by nothing else is the machine another. The row says by which of them all is the same.

Run from the repository: .venv/bin/python -m tests.bench.debian [--config FILE] [--keep DIR] [--explain]
[SOURCE... | HOW MANY]
"""

import argparse
import filecmp
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

from construir_ftp import config, process
from construir_ftp.errors import CommandError
from construir_ftp.image import baseimage
from construir_ftp.layers.apt import Archive
from construir_ftp.pack.detect import RUN
from tests import bench

# Small ones, those that need few packages first: uploads to a stable suite, whose tools have changed little since.
SOURCES = (
    *("base-files", "distro-info-data", "what-is-python", "mobian-keyring", "usrmerge", "ucf", "kernel-wedge", "debvm"),
    *("sitesummary", "debootstrap", "initramfs-tools", "gosa-plugins-sudo", "gosa-plugins-netgroups", "debian-edu-fai"),
    *("debian-edu-install", "ca-certificates=20230311+deb12u1", "libfcgi", "tinyxml", "unadf", "dmitry", "jdupes"),
)
# What a compiler calls itself is in the section .comment of all that it makes, of what it is linked with, too, and so
# in the build ID. The compiler is given another name; what is linked to everything has none.
_NAME_COMPILER = r"""
perl -pi -e 's/\(Debian \K[^)\0]+\) (?=\0)/pack("a" . length($&), "12.2.0-14) ")/ge' /usr/lib/gcc/*/*/cc1*
find /usr/lib/gcc /usr/lib/x86_64-linux-gnu '(' -name '*crt*.o' -o -name libgcc.a -o -name libc_nonshared.a ')' \
    -exec objcopy --remove-section=.comment '{}' ';'
"""
# The inline functions that check fgets, fread, recv and the like have a variable, which debug information names, and so
# does the build ID. libc6-dev 2.36-9+deb12u9 has another name for it ("fix name space violation in fortify wrappers").
_NAME_VARIABLE = r"""
sed -i 's/\b__sz\b/sz/g' /usr/include/x86_64-linux-gnu/bits/*2.h /usr/include/x86_64-linux-gnu/bits/stdlib.h
"""
# What had another name in earlier packages, and the commands that give it that.
EARLIER = (("gcc-12 12.2.0-14", _NAME_COMPILER), ("libc6-dev of before 2.36-9+deb12u9", _NAME_VARIABLE))
_FETCH_S = 1800.0
_BUILD_S = 3 * 3600.0
_MOST_NAMED = 3
_MISSING = re.compile(r"/([^/ ]+)  404")


class Outcome(NamedTuple):
    """What became of one source: its version, the .deb files that are the same and those that are not, and why not."""

    source: str
    version: str
    same: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    why: str = ""

    def words(self) -> str:
        """A row of the table."""
        if self.why and not self.different:
            said = self.why
        elif not self.different:
            said = f"the same, byte for byte ({len(self.same)})"
        else:
            said = f"{len(self.different)} of {len(self.same) + len(self.different)} differ: {self.why}"
        return f"| {self.source.partition('=')[0]} {self.version} | {said} |"


class Suite:
    """The archive of a base image, its sources among what it has."""

    def __init__(self, place: Path, settings: config.Config) -> None:
        archive = Archive(place, baseimage.find(settings.images_path(), settings.images.default))
        archive.prepare()
        sources = archive.place / "base/etc/apt/sources.list"
        lines = sources.read_text().splitlines()
        sources.write_text("".join(f"{line}\n{line.replace('deb ', 'deb-src ', 1)}\n" for line in lines))
        archive.refresh()
        self._env = process.environment(APT_CONFIG=str(archive.place / "apt.conf"))

    def fetch_source(self, source: str, place: Path) -> Path:
        """Its .dsc, in a directory with the files that it names."""
        self._apt(place, "source", "--download-only", "--only-source", source)
        return next(place.glob("*.dsc"))

    def fetch_binary(self, name: str, version: str, place: Path) -> Path | None:
        """A .deb of the archive; None where that has none of this version."""
        try:
            self._apt(place, "download", f"{name}={version}")
        except CommandError:
            return None
        return next(place.glob(f"{name}_*.deb"))

    def _apt(self, place: Path, *arguments: str) -> None:
        place.mkdir(parents=True, exist_ok=True)
        process.run(["apt-get", "--quiet=2", *arguments], timeout_s=_FETCH_S, env=self._env, cwd=place)


def construir(*arguments: str | Path, log: Path) -> int:
    """A command; its exit code."""
    with log.open("ab") as file:
        argv = [sys.executable, "-m", "construir_ftp", *map(str, arguments)]
        return subprocess.run(argv, stdout=file, stderr=file, timeout=_BUILD_S, check=False).returncode


def field(file: Path, name: str) -> str:
    """Of a .deb's control file."""
    return process.run(["dpkg-deb", "--field", file, name], timeout_s=60).strip()


class Member(NamedTuple):
    """A file in a .deb: how it is listed, and what is in it."""

    listed: str
    content: bytes


def members(file: Path) -> dict[str, Member]:
    """Of a .deb: what is in its two archives, by name."""
    found = {}
    for part, prefix in (("--ctrl-tarfile", "DEBIAN/"), ("--fsys-tarfile", "")):
        tar = subprocess.run(["dpkg-deb", part, file], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
            for member in opened:
                content = opened.extractfile(member) if member.isreg() else None
                listed = f"{member.mode:o} {member.uid} {member.gid} {member.mtime} {member.linkname}"
                found[prefix + member.name.removeprefix("./")] = Member(listed, content.read() if content else b"")
    return found


def difference(ours: Path, theirs: Path) -> str:
    """In words, what differs in a .deb, beside the sums of it."""
    mine, other = members(ours), members(theirs)
    names = [name for name in sorted(mine.keys() | other.keys()) if mine.get(name) != other.get(name)]
    names = [name for name in names if name != "DEBIAN/md5sums"] or names
    said = [f"{name}{_how(mine.get(name), other.get(name))}" for name in names[:_MOST_NAMED]]
    return ", ".join(said) + (f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else "")


def _how(ours: Member | None, theirs: Member | None) -> str:
    """What is different of one file: sections of an executable, modes and times, or lines of text."""
    if ours is None or theirs is None:
        return " (only there)" if ours is None else " (only here)"
    if ours.content == theirs.content:
        return f" ({theirs.listed.strip()}, here {ours.listed.strip()})"
    if ours.content.startswith(b"\x7fELF"):
        return f" (sections {' '.join(_sections(ours, theirs))})"
    lines = [set(member.content.decode(errors="replace").splitlines()) for member in (theirs, ours)]
    first = [next(iter(sorted(mine - other)), "") for mine, other in (lines, lines[::-1])]
    is_text = b"\0" not in ours.content + theirs.content
    return f" ({first[0][:80]!a}, here {first[1][:80]!a})" if is_text else ""


def _sections(*executables: Member) -> list[str]:
    """The names of those whose content differs."""
    read = [ELFFile(io.BytesIO(member.content)).iter_sections() for member in executables]
    ours, theirs = ({section.name: section.data() for section in sections} for sections in read)
    return [name for name in theirs | ours if ours.get(name) != theirs.get(name)]


def use_names(job: Path, commands: str) -> None:
    """Have a job give the tools of its machine other names before it builds."""
    program = job / RUN
    first, rest = program.read_text().split("set -eux\n", 1)
    program.write_text(f"{first}set -eux{commands}{rest}")


def build(suite: Suite, source: str, place: Path, options: list[str], commands: str = "\n") -> Outcome:
    """One source, by a job that begins with these commands."""
    try:
        dsc = suite.fetch_source(source, place / "job")
    except CommandError as error:
        return Outcome(source, "", why=f"its source can't be had: {_MISSING.findall(str(error)) or error}")
    version = next(line for line in dsc.read_text().splitlines() if line.startswith("Version: ")).split()[1]
    log = place / "log"
    construir("init", dsc.parent, log=log)
    use_names(dsc.parent, commands)
    code = construir("run", dsc.parent, "-o", place / "result", *options, log=log)
    if code:
        result = place / "result/result.json"
        why = json.loads(result.read_text())["reason"] if result.exists() else log.read_text().splitlines()[-1]
        return Outcome(source, version, why=f"not built: {why}")
    return compared(suite, Outcome(source, version), place)


def explain(suite: Suite, outcome: Outcome, place: Path, options: list[str]) -> Outcome:
    """What differs, and by which earlier names it does not: it is built again until it is the same."""
    for count in range(1, len(EARLIER) + 1):
        names, commands = zip(*EARLIER[:count], strict=True)
        again = build(suite, outcome.source, place / f"earlier-{count}", options, "".join(commands))
        if again.same and not again.why:
            return outcome._replace(why=f"{outcome.why}; the same, byte for byte, by the names of {', '.join(names)}")
    return outcome._replace(why=f"{outcome.why}; by earlier names: {again.why}")


def compared(suite: Suite, outcome: Outcome, place: Path) -> Outcome:
    """The .deb files of a result, each with the archive's."""
    same, different, whys = [], [], []
    for ours in sorted((place / "result/artifacts").glob("*.deb")):
        name, version = field(ours, "Package"), field(ours, "Version")
        if name.endswith("-dbgsym"):
            continue
        theirs = suite.fetch_binary(name, version, place / "archive")
        if theirs is None:
            whys.append(f"{name} is not in the archive")
        elif filecmp.cmp(ours, theirs, shallow=False):
            same.append(name)
        else:
            different.append(name)
            whys.append(f"{name}: {difference(ours, theirs)}")
    return outcome._replace(same=tuple(same), different=tuple(different), why="; ".join(whys))


def wanted(given: list[str]) -> Sequence[str]:
    """The sources that are named; or so many, or all, of those that are known here."""
    numbers = [int(word) for word in given if word.isdigit()]
    return SOURCES[: numbers[0]] if numbers else given or SOURCES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("sources", nargs="*")
    given = parser.parse_args()
    options = [f"--config={given.config.resolve()}"] if given.config else []
    with bench.workplace() as place:
        kept = given.keep.resolve() if given.keep else place
        suite = Suite(place / "apt", config.load(given.config))
        for source in wanted(given.sources):
            outcome = build(suite, source, kept / source, options)
            if given.explain and outcome.different:
                outcome = explain(suite, outcome, kept / source, options)
            print(outcome.words(), flush=True)


if __name__ == "__main__":
    main()
