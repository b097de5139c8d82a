"""The Debian package in a fresh Debian of each release: apt installs it, all of it is there, a purge keeps results."""

import subprocess
from pathlib import Path

import pytest

from construir_ftp import __version__
from tests.support import computer, debianpackage

pytestmark = pytest.mark.root("the package is installed in a chroot")
_PATIENCE_S = 600
# A file system of its own, which is gone with the process that made it. Nothing is mounted on the host.
_ENTER = """
    mount -t tmpfs tmpfs "$1" && mkdir "$1/up" "$1/work" "$1/root"
    mount -t overlay -o "lowerdir=$0,upperdir=$1/up,workdir=$1/work" overlay "$1/root"
    mount --rbind /dev "$1/root/dev" && mount -t proc proc "$1/root/proc"
    cp "$2" "$1/root/construir.deb"
    exec chroot "$1/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -eu
"""
_SCRIPT = """
apt-get -qq install --no-install-recommends /construir.deb >/install.log 2>&1 || { cat /install.log; exit 1; }
echo "version: $(construir --version)"
construir check || true
ls -l /etc/construir /var/lib/construir/spool
touch /var/lib/construir/spool/done/a-result
apt-get -qq purge construir >/purge.log 2>&1 || { cat /purge.log; exit 1; }
echo "program: $(find /usr/lib/construir /etc/construir/construir.toml /usr/bin/construir 2>/dev/null | wc -l) files"
echo "results: $(ls /var/lib/construir/spool/done)"
apt-get -qq install --no-install-recommends /construir.deb >/install.log 2>&1 || { cat /install.log; exit 1; }
echo "again: $(construir --version)"
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return debianpackage.make(tmp_path_factory.mktemp("package") / "out")


@pytest.fixture(scope="module", params=computer.SUITES)
def said(request: pytest.FixtureRequest, package: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What was said in it, from the package's coming to its end and its second coming."""
    tree, place = computer.tree(request.param), tmp_path_factory.mktemp("chroot")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-euc", _ENTER, tree, place, package],
        input=_SCRIPT,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_of_it_is_there_and_can_be_loaded(said: str) -> None:
    assert f"version: construir, version {__version__}\n" in said
    assert "ok       program: all " in said
    assert "ok       QEMU: " in said
    assert "ok       libmagic: the judge knows a sample job" in said


def test_who_may_send_jobs_is_nobody_elses_business(said: str) -> None:
    assert "-rw-r----- 1 root construir " in said
    assert "drwx------ 2 construir construir " in said, "incoming/"


def test_purge_leaves_results_and_nothing_of_the_program(said: str) -> None:
    assert "program: 0 files\nresults: a-result\n" in said
    assert f"again: construir, version {__version__}\n" in said
