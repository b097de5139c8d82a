"""The Debian package that deploy/package makes: the same bytes whenever it is made, and all of it works."""

import shutil
import subprocess
from pathlib import Path

import pytest

from construir_ftp import __version__
from tests.support.debianpackage import make
from tests.support.places import PROJECT

_PATIENCE_S = 300
_HOME = "usr/lib/construir"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("package") / "out")


@pytest.fixture(scope="module")
def tree(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the package holds, in a directory."""
    place = tmp_path_factory.mktemp("tree")
    subprocess.run(["dpkg-deb", "--extract", package, place], check=True)
    return place


def installed(tree: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on this host as if the package were installed; nothing of this checkout is seen."""
    script = """
        for part in usr etc; do mount -t overlay -o "lowerdir=$0/$part:/$part" overlay "/$part"; done
        mount -t tmpfs tmpfs "$1" && cd / && shift && exec "$@"
    """
    return subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-euc", script, tree, PROJECT, *argv],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def checked(tree: Path) -> "subprocess.CompletedProcess[str]":
    """What `construir check` says of it."""
    return installed(tree, "construir", "check")


def test_its_bytes_are_the_same_whoever_makes_it_and_where(package: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "another place", umask=0o077, TZ="Pacific/Auckland", LC_ALL="C")
    assert again.read_bytes() == package.read_bytes()


def test_every_library_in_it_has_its_licence_told(tree: Path) -> None:
    told = (tree / "usr/share/doc/construir/copyright").read_text()
    libraries = [path.name for path in (tree / _HOME).rglob("*.dist-info")]
    assert len(libraries) == 24
    for library in libraries:
        assert f"/site-packages/{library}/*" in told or f"/site-packages/{library.partition('-')[0]}*" in told


def test_lintian_has_nothing_to_say_that_the_overrides_do_not_explain(package: Path) -> None:
    argv: list[str | Path] = ["lintian", "--allow-root", "--fail-on=error,warning", "--tag-display-limit=0", package]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr


def test_a_later_commit_makes_a_newer_package(package: Path) -> None:
    told = subprocess.run(
        ["dpkg-deb", "--field", package, "Version"], capture_output=True, text=True, check=True
    ).stdout
    assert package.name == f"construir_{told.strip()}_amd64.deb"
    later = f"{__version__}+git99991231.235959.1"
    for older, newer in ((__version__, told.strip()), (told.strip(), later), (later, f"{__version__}.1")):
        subprocess.run(["dpkg", "--compare-versions", older, "le", newer], check=True)


def test_no_part_of_it_is_written_in_by_others_or_owned_by_the_one_who_made_it(package: Path) -> None:
    listing = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        mode, owner = line.split()[:2]
        assert owner == "root/root", line
        assert mode[0] == "l" or (mode[5], mode[8]) == ("-", "-"), line


@pytest.mark.root("the package is laid over the host's files in a mount namespace")
def test_the_command_is_there_with_its_libraries_and_its_configuration(
    tree: Path, checked: "subprocess.CompletedProcess[str]"
) -> None:
    assert installed(tree, "construir", "--version").stdout == f"construir, version {__version__}\n"
    assert "libmagic: the judge knows a sample job" in checked.stdout, checked.stdout + checked.stderr
    assert "/var/lib/construir/spool" in checked.stdout, "it has read /etc/construir/construir.toml"


@pytest.mark.root("the package is laid over the host's files in a mount namespace")
def test_check_finds_a_library_that_only_one_part_needs_missing(
    tree: Path, checked: "subprocess.CompletedProcess[str]", tmp_path: Path
) -> None:
    assert "program: all " in checked.stdout
    lacking = tmp_path / "lacking"
    subprocess.run(["cp", "--archive", tree, lacking], check=True)
    with (lacking / _HOME / "lib/python/site-packages/construir_ftp/ftp/server.py").open("a") as server:
        server.write("import nowhere_to_be_had\n")
    found = installed(lacking, "construir", "check")
    said = "problem  program: construir_ftp.ftp.server can't be loaded: No module named 'nowhere_to_be_had'"
    assert said in found.stdout, found.stdout + found.stderr
    assert found.returncode == 1


@pytest.mark.root("the package is laid over the host's files in a mount namespace")
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_has_nothing_to_say_against_its_units(tree: Path) -> None:
    units = [f"/usr/lib/systemd/system/{path.name}" for path in (tree / "usr/lib/systemd/system").iterdir()]
    found = installed(tree, "systemd-analyze", "verify", *units)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


# Of units that do not run systemd counts two tenths more than of those that do: those are at 3.5, 5.5 and 1.3.
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize(("part", "most"), [("ftp", 3.7), ("runner", 5.7), ("node", 5.7), ("janitor", 1.5)])
def test_systemd_takes_its_units_for_safe_enough(part: str, most: float) -> None:
    unit = PROJECT / "deploy" / "systemd" / f"construir-{part}.service"
    threshold = f"--threshold={most * 10:.0f}"
    argv: list[str | Path] = ["systemd-analyze", "security", "--no-pager", "--offline=true", threshold, unit]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr
