"""The disk that makes a computer an appliance: what is on it, and what two computers make of it.

It takes Debian's archive, and half an hour under emulation: only with --all.
"""

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from tests.support import appliancedisk, images, selfboot
from tests.support.appliance import construir
from tests.support.appliancedisk import Computer
from tests.support.images import run
from tests.support.places import PROJECT

pytestmark = pytest.mark.slow("it installs a Debian, and boots it under emulation")

_BUILD_S = 3600
_GROWN = "6G"


class Identity(msgspec.Struct, frozen=True):
    """What no two appliances may share."""

    fingerprint: str
    contributor: str
    administrator: str
    machine_id: str
    root_hash: str
    signing_key: str


def build(place: Path) -> Path:
    """Make the disk by the command; the compressed one."""
    place.mkdir()
    done = subprocess.run(
        [PROJECT / "deploy" / "appliance", place], capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(place.glob("construir-appliance_*_amd64.img.zst"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("appliance") / "first")


@pytest.fixture(scope="module")
def disk(packed: Path) -> Path:
    run("zstd", "-dq", "--sparse", packed, "-o", packed.with_suffix(""))
    return packed.with_suffix("")


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
    contributor = console.expect(r"Contributor +first +password +(\S+)")[1]
    administrator = console.expect(r"Administrator +root +password +(\S+)")[1]
    console.expect("Enter: log in")
    console.log_in(administrator)
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


def test_it_is_made_alike_twice(packed: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "again").read_bytes() == packed.read_bytes()


def test_two_computers_of_bios_and_uefi_share_nothing_take_uploads_and_survive_a_power_cut(
    disk: Path, tmp_path: Path, upload: Path
) -> None:
    found = []
    for name, uefi in (("bios", False), ("uefi", True)):
        own = larger_copy(disk, tmp_path / name)
        with appliancedisk.switched_on(own, uefi=uefi) as computer:
            one = identity(computer)
            found.append(one)
            size = computer.console.answer("df --output=size -B1M / | tail -n 1")
            assert int(size) > 5000, "it has grown"
            assert computer.console.answer("test -d /sys/firmware/efi && echo uefi || echo bios") == name
            reply = appliancedisk.send(computer, one.contributor, upload)
            assert re.match("226 Accepted as job ", reply), reply
            computer.cut_power()
        if uefi:
            with appliancedisk.switched_on(own, uefi=uefi) as computer:
                computer.console.expect(re.escape(one.fingerprint))
                computer.console.expect(r"queue +1")
                assert appliancedisk.send(computer, one.contributor, upload).startswith("226 Accepted as job ")
    first, second = map(msgspec.structs.astuple, found)
    assert not set(first) & set(second)
    assert all(first)
