"""A package's name means that package alone, and an archive that doesn't answer keeps only its own waiting."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from construir_ftp import locks, process
from construir_ftp.errors import CommandError, RefusedError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import request
from construir_ftp.layers.apt import Archive
from construir_ftp.layers.store import ARCHIVES
from tests.support import baseimages
from tests.support.debarchive import DebArchive
from tests.support.hostilearchive import HostileArchive

LONG_S = 60.0
NAMES = ("gcc", "g++", "abc", "tool")


def base_of(place: Path, source: str, status: str = "") -> BaseImage:
    there = {"var/lib/dpkg/status": status, "etc/apt/sources.list": source, "etc/apt/preferences.d/none": ""}
    return baseimages.publish(place / "images", "small", there)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    place = tmp_path_factory.mktemp("archive")
    debs = DebArchive(place / "debs")
    for name in NAMES:
        debs.add(name)
    base = base_of(place, "")
    debs.serve(place / "spool", base)
    found = Archive(place / "spool/layers" / ARCHIVES, base)
    found.refresh()
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", [*NAMES, "gcc=1.0", "g++=1.0"])
def test_a_name_is_that_package(archive: Archive, name: str) -> None:
    plan = archive.resolve((name,))
    assert plan.versions() == [f"{name.removesuffix('=1.0')}:all=1.0"]
    assert [file.name.partition("_")[0] for file in archive.fetch(plan)] == [name.removesuffix("=1.0")]


@pytest.mark.parametrize("name", ["a.+", "a.c", "gcc+", "gcc-", "g+", "gcc++", "abc-", "to..", "lib.+-"])
def test_a_name_that_apt_would_take_for_an_expression_or_a_removal_is_of_no_package(
    archive: Archive, name: str
) -> None:
    request.read(f"[dependencies]\npackages = ['{name}']")
    with pytest.raises(RefusedError, match="Unable to locate package") as refused:
        archive.resolve(("gcc", name))
    assert f"package {name} in the archive of small" in str(refused.value)


def test_build_dependencies_are_satisfied_as_debian_control_means_them(archive: Archive) -> None:
    relations = ("nothing-such | abc (>= 1.0)", "elsewhere [no-such-cpu]", "g++ <!nocheck>", "booter <stage1>", "tool")
    plan = archive.resolve(("gcc=1.0",), relations)
    assert plan.versions() == [f"{name}:all=1.0" for name in ("abc", "g++", "gcc", "tool")]
    assert plan.asked == ("gcc=1.0", *relations)


@pytest.mark.parametrize(
    ("relation", "why"),
    [
        ("abc (>= 2)", r"Depends: abc \(>= 2\)"),
        ("no-such | none-such", "Depends: no-such but it is not installable or none-such but it is not installable"),
        ("abc (>= 1", r"Problem parsing dependency: abc \(>= 1"),
        ("Conflicts: gcc", "gcc"),
    ],
)
def test_build_dependency_that_cannot_be_had_is_told_in_apts_words(archive: Archive, relation: str, why: str) -> None:
    with pytest.raises(RefusedError, match=rf"dependencies.build_depends: .*{why}"):
        archive.resolve(("gcc",), (relation,))


def test_what_conflicts_with_a_package_of_the_base_image_has_that_removed_first(tmp_path: Path) -> None:
    debs = DebArchive(tmp_path / "debs")
    debs.add("gcc", depends="other")
    debs.add("other", conflicts="small-gcc")
    installed = "Status: install ok installed\nVersion: 1.0\nArchitecture: all\nDescription: a\nMaintainer: A\n"
    base = base_of(tmp_path, "", f"Package: small-gcc\n{installed}")
    debs.serve(tmp_path / "spool", base)
    archive = Archive(tmp_path / "spool/layers" / ARCHIVES, base)
    archive.refresh()
    plan = archive.resolve(("gcc",))
    assert plan.steps == (
        ("remove", ("small-gcc",)),
        ("unpack", ("other", "gcc")),
        ("configure", ("other", "gcc")),
    )
    assert plan.versions() == ["gcc:all=1.0", "other:all=1.0"]
    assert [file.name for file in archive.fetch(plan)] == ["other_1.0_all.deb", "gcc_1.0_all.deb"]


@pytest.mark.parametrize("name", ["gcc=1.0+", "gcc=1.0-", "gcc=1.+", "g++=1.0++"])
def test_a_version_is_that_version(archive: Archive, name: str) -> None:
    with pytest.raises(RefusedError, match="was not found"):
        archive.resolve((name,))


@pytest.mark.parametrize(
    "name",
    [
        "-y",
        "--help",
        "-oDpkg::Pre-Invoke=x",
        "gcc/stable",
        "gcc:i386",
        "gcc^",
        "?true",
        "~ngcc",
        "a b",
        "GCC",
        "g",
        "./x.deb",
        "gcc=",
        "gcc=1*",
    ],
)
def test_what_is_no_name_is_refused_before_apt_sees_it(name: str) -> None:
    with pytest.raises(RefusedError, match="expected names of Debian packages"):
        request.read(f"[dependencies]\npackages = ['{name}']")


@contextmanager
def silent() -> Iterator[int]:
    """The port of an archive that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.long
@pytest.mark.steady(1)
def test_an_archive_that_says_nothing_is_given_up_and_left_alone_for_a_while(tmp_path: Path) -> None:
    with silent() as port:
        base = base_of(tmp_path, f"deb [trusted=yes] http://127.0.0.1:{port} ./\n")
        archive = Archive(tmp_path / "archives", base, at_the_door_s=7)
        waiting = threading.Thread(
            target=pytest.raises, args=[CommandError, archive.refresh], kwargs={"at_the_door": True}
        )
        waiting.start()
        while not (archive.place / "apt.conf").exists():
            time.sleep(0.01)
        with pytest.raises(CommandError, match="something is being fetched for small"):
            Archive(tmp_path / "archives", base).refresh(at_the_door=True)
        waiting.join()
        for at_the_door in (True, False):
            with pytest.raises(CommandError, match="failed less than 60 s ago"):
                archive.refresh(at_the_door=at_the_door)


REFRESH = """
import sys
from pathlib import Path
from construir_ftp.image import baseimage
from construir_ftp.layers.apt import Archive
Archive(Path(sys.argv[1]), baseimage.find(Path(sys.argv[2]), "small")).refresh()
"""


def fetchers(archive: Archive) -> list[str]:
    """The programs that run with the configuration of an apt directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(archive.place / "apt.conf").encode() in (entry / "environ").read_bytes():
                found.append((entry / "comm").read_text().strip())
    return found


def test_what_a_killed_one_was_fetching_has_ended_before_another_fetches(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_text("Package: tool\n" * 1000)
    with HostileArchive(tmp_path).serving() as hostile:
        hostile.habits["*"] = "trickles"
        base = base_of(tmp_path, f"deb [trusted=yes] {hostile.url} ./\n")
        archive = Archive(tmp_path / "archives", base)
        argv: list[str | Path] = [sys.executable, "-c", REFRESH, tmp_path / "archives", tmp_path / "images"]
        with process.spawn(argv) as killed:
            wait_for(lambda: "Packages" in hostile.asked)
            assert {"apt-get", "http"} <= set(fetchers(archive))
            killed.kill()
        with locks.held(archive.place / ".lock"):
            assert "apt-get" not in fetchers(archive)
            wait_for(lambda: fetchers(archive) == [])


def wait_for(come: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not come():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_old_lists_do_while_the_archive_fails_or_another_one_fetches(archive: Archive) -> None:
    two_days_ago = time.time() - 2 * 86400
    debs = Path((archive.place / "base/etc/apt/sources.list").read_text().split()[2].removeprefix("copy:"))
    (debs / "Packages").rename(debs / "gone")
    try:
        for _ in range(2):
            os.utime(archive.place / "refreshed", (two_days_ago, two_days_ago))
            archive.refresh()
        with locks.held(archive.place / ".lock"):
            archive.refresh(at_the_door=True)
        assert archive.resolve(("gcc",)).versions() == ["gcc:all=1.0"]
    finally:
        (debs / "gone").rename(debs / "Packages")
        (archive.place / "failed").unlink()
    archive.refresh()
    assert (archive.place / "refreshed").stat().st_mtime > two_days_ago + 86400


def test_lists_that_are_new_are_used_whoever_holds_the_directory(archive: Archive) -> None:
    with locks.held(archive.place / ".lock"):
        archive.refresh()
        archive.refresh(at_the_door=True)
