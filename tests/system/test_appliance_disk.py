"""The disk that makes a computer an appliance: what is on it, and what two computers make of it.

It takes Debian's archive, and half an hour under emulation: only with --all.
"""

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from construir_ftp.image.baseimage import BaseImage
from tests.support import appliancedisk, images, ordinaryuser, selfboot
from tests.support.appliance import construir
from tests.support.appliancedisk import Computer
from tests.support.computer import copy_image, make_disk
from tests.support.images import run
from tests.support.places import PROJECT

pytestmark = pytest.mark.slow("it installs a Debian, and boots it under emulation")

_BUILD_S = 3600
_GROWN = "6G"
# Somebody with subordinate ids, as useradd gives them, whom this host doesn't know otherwise.
_AS_SOMEBODY = """
    mount -t tmpfs tmpfs /mnt && mkdir /mnt/place /mnt/home
    for file in passwd subuid subgid; do cp /etc/$file /mnt/$file; done
    echo somebody:x:64999:64999::/mnt/home:/bin/sh >>/mnt/passwd
    echo somebody:1700000000:65536 | tee -a /mnt/subuid >>/mnt/subgid
    for file in passwd subuid subgid; do mount --bind /mnt/$file /etc/$file; done
    mount --bind "$1" /mnt/place && chown 64999:64999 /mnt/place /mnt/home
    export HOME=/mnt/home GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
    exec setpriv --reuid 64999 --regid 64999 --clear-groups "$0" /mnt/place
"""
# One user-mode machine, and as much time as it takes in a computer that is emulated itself.
USER_MODE = r"""
[machine]\naccelerator = "uml"\nwarm = false\nboot_timeout = "1h"\nmount_timeout = "1h"\n[runner]\nslots = 1\n
""".strip()


class Identity(msgspec.Struct, frozen=True):
    """What no two appliances may share."""

    fingerprint: str
    contributor: str
    administrator: str
    machine_id: str
    root_hash: str
    signing_key: str


def build(place: Path, *, is_ordinary: bool = False) -> Path:
    """Make the disk by the command, perhaps as an ordinary user, who has root to become one; the compressed one."""
    place.mkdir()
    argv: list[str | Path] = [PROJECT / "deploy" / "appliance", place]
    if is_ordinary:
        argv = ["unshare", "--mount", "--propagation=private", "sh", "-euc", _AS_SOMEBODY, *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(place.glob("construir-appliance_*_amd64.img.zst"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("appliance") / "first")


@pytest.fixture(scope="module")
def disk(packed: Path) -> Path:
    run("zstd", "-dq", "--sparse", packed, "-o", packed.with_suffix(""))
    return packed.with_suffix("")


@pytest.fixture(scope="module")
def stick(uml_base: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stick")
    copy_image(uml_base, place / "images")
    make_disk(place / "images", place / "stick.img", 32)
    return place / "stick.img"


@pytest.fixture(scope="module")
def found() -> list[Identity]:
    """What the computers before had, of which none may have any again."""
    return []


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    job = images.job_directory(tmp_path / "hello", b"#!/bin/sh\necho hello\n")
    construir("pack", job, "-o", tmp_path / "hello.img.zst", "--space", "1MiB", check=True)
    return tmp_path / "hello.img.zst"


def larger_copy(disk: Path, place: Path) -> Path:
    """A disk of another size that it was written to."""
    place.mkdir()
    over = selfboot.over(disk, place)
    run("qemu-img", "resize", "-q", over, _GROWN)
    return over


def identity(computer: Computer) -> Identity:
    """As the console shows it, and its administrator finds it."""
    console = computer.console
    fingerprint = console.expect(r"certificate ([0-9A-F:]{95})")[1]
    contributor = console.expect(r"Contributor +first +password +(\S+)\s")[1]
    administrator = console.expect(r"Administrator +root +password +(\S+)\s")[1]
    appliancedisk.wait_until_shown(console)
    appliancedisk.log_in(console, administrator)
    return Identity(
        fingerprint,
        contributor,
        administrator,
        console.answer("cat /etc/machine-id"),
        console.answer("grep ^root: /etc/shadow"),
        console.answer("openssl pkey -in /etc/construir/construir.key -pubout"),
    )


def test_disk_is_small_and_holds_nothing_secret(packed: Path, disk: Path) -> None:
    assert packed.stat().st_size <= 300_000_000
    assert disk.stat().st_size <= 700_000_000
    assert selfboot.file_on_root(disk, "/etc/machine-id") == b""
    shadow = selfboot.file_on_root(disk, "/etc/shadow").decode()
    assert {line.split(":")[1] for line in shadow.splitlines()} <= {"*", "!", "!*"}
    assert selfboot.file_on_root(disk, "/etc/construir/users.toml") == b""
    for secret in ("tls/key.pem", "construir.key"):
        with pytest.raises(Exception, match="there is no file"):
            selfboot.file_on_root(disk, f"/etc/construir/{secret}")


@pytest.mark.root("it becomes another user")
def test_an_ordinary_user_makes_the_same_again(packed: Path, tmp_path: Path) -> None:
    if ordinaryuser.closed(PROJECT):
        pytest.skip("the checkout is in a directory that is root's alone")
    assert build(tmp_path / "again", is_ordinary=True).read_bytes() == packed.read_bytes()


def bring_base_image(computer: Computer, administrator: str, base: BaseImage) -> None:
    """From the stick, where it would take hours to be built, one whose machines need no emulation."""
    appliancedisk.log_in(computer.console, administrator)
    for command in (
        "systemctl stop appliance-image.timer appliance-image.service; systemctl reset-failed appliance-image.service",
        "mount -o ro /dev/vdb /mnt && cp -a --sparse=always /mnt/. /var/lib/construir/images/",
        f"sed -i 's/^default = .*/default = \"{base.name}\"/' /etc/construir/construir.toml",
        f"printf '\\n{USER_MODE}' >>/etc/construir/construir.toml",
        "systemctl restart construir-runner construir-ftp",
    ):
        computer.console.answer(command)
    assert computer.console.answer("systemctl is-active construir-runner construir-ftp").split() == ["active"] * 2


@pytest.mark.parametrize("uefi", [False, True], ids=["bios", "uefi"])
def test_computer_makes_what_is_its_own_and_after_a_power_cut_runs_the_job_that_waits(
    disk: Path, tmp_path: Path, upload: Path, stick: Path, uml_base: BaseImage, found: list[Identity], uefi: bool
) -> None:
    own = larger_copy(disk, tmp_path / "disk")
    with appliancedisk.switched_on(own, stick, uefi=uefi) as computer:
        one = identity(computer)
        size = computer.console.answer("df --output=size -B1M / | tail -n 1")
        assert int(size) > 5000, "it has grown"
        firmware = computer.console.answer("test -d /sys/firmware/efi && echo uefi || echo bios")
        assert firmware == ("uefi" if uefi else "bios")
        (waits,) = re.findall("^226 Accepted as job ([^ ,]+),", appliancedisk.send(computer, one.contributor, upload))
        computer.cut_power()
    with appliancedisk.switched_on(own, stick, uefi=uefi) as computer:
        computer.console.expect(re.escape(one.fingerprint))
        appliancedisk.wait_until_shown(computer.console, waiting=1)
        bring_base_image(computer, one.administrator, uml_base)
        assert appliancedisk.output(computer, waits) == ["hello"]
        assert computer.console.answer("systemctl --failed --plain --no-legend") == ""
    assert all(msgspec.structs.astuple(one))
    for other in found:
        assert not set(msgspec.structs.astuple(one)) & set(msgspec.structs.astuple(other))
    found.append(one)
