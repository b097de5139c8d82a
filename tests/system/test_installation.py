"""The Debian package in a fresh Debian of each release: apt installs it, all of it is there, a purge keeps results."""

import re
import subprocess
from pathlib import Path

import pytest

from construir_ftp import __version__
from construir_ftp.image.baseimage import BaseImage
from tests.support import computer, debianpackage
from tests.support.places import PROJECT

pytestmark = pytest.mark.root("the package is installed in a chroot")
_PATIENCE_S = 600
# A file system of its own, which is gone with the process that made it. Nothing is mounted on the host.
_LAY = """
    mount -t tmpfs tmpfs "$1" && mkdir "$1/up" "$1/work" "$1/root"
    mount -t overlay -o "lowerdir=$0,upperdir=$1/up,workdir=$1/work" overlay "$1/root"
    mount --rbind /dev "$1/root/dev" && mount -t proc proc "$1/root/proc"
    cp "$2" "$1/root/construir.deb"
"""
_ENTER = f"""{_LAY}
    exec chroot "$1/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -eu
"""
# The root itself and not a chroot, in which there are no jails; with the host's network and base images.
_MOVE_IN = f"""{_LAY}
    mount --rbind /sys "$1/root/sys"
    cp -r "$3/deploy" "$1/root/deploy" && cp /etc/resolv.conf "$1/root/etc"
    mkdir -p "$1/root/var/lib/construir/images" && cp -a --sparse=always "$4/." "$1/root/var/lib/construir/images"
    mkdir "$1/root/old" && cd "$1/root" && pivot_root . old && umount -l old
    exec /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root deploy/install /construir.deb --yes
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


@pytest.mark.slow("apt fetches what images are built with")
@pytest.mark.parametrize("suite", computer.SUITES)
def test_one_command_opens_the_doors(suite: str, package: Path, images: Path, base: BaseImage, tmp_path: Path) -> None:
    argv: list[str | Path] = ["unshare", "--mount", "--propagation=private", "sh", "-euc", _MOVE_IN]
    argv += [computer.tree(suite), tmp_path, package, PROJECT, images]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE_S * 3, check=False)
    said = done.stdout
    assert (done.returncode, "problem " in said) == (0, False), said + done.stderr
    assert f"{base.name} is there already" in said
    assert "the doors are open: ftp.address is " in said
    assert re.search(r"^Password:    \S+ ", said, re.MULTILINE)
    assert re.search(r"^Address:     ftp://\S+:21/$", said, re.MULTILINE)
