"""Promises of accelerator: what it says to do about KVM mends what is wrong with it."""

import grp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from construir_ftp import architecture
from construir_ftp.config import MachineSection
from construir_ftp.machine import accelerator
from tests.support.places import PROJECT

NATIVE = architecture.native()
# The files of /etc that say who there is.
_ACCOUNTS = {"passwd", "group", "shadow", "gshadow", "login.defs", "nsswitch.conf"}
IS_ROOT = os.geteuid() == 0


def remedy(device: Path) -> str:
    return accelerator.remedy(MachineSection(), NATIVE, device)


def test_a_missing_kvm_is_not_mended_by_permissions(tmp_path: Path) -> None:
    words = remedy(tmp_path / "kvm")
    assert "firmware" in words
    assert "usermod" not in words


def test_a_kvm_that_only_others_may_open_is_mended_by_its_group(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch(0o600 if IS_ROOT else 0o000)
    device.chmod(0o600 if IS_ROOT else 0o000)
    assert ("chgrp kvm" if IS_ROOT else "usermod --append --groups") in remedy(device)


@pytest.mark.root("it gives the device to a group")
@pytest.mark.parametrize("mode", [0o660, 0o666])
def test_a_kvm_that_jails_may_open_needs_no_permission(tmp_path: Path, mode: int) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(mode)
    os.chown(device, 0, 4)
    assert remedy(device).startswith(f"{device} opens, but boots nothing")


def test_a_group_that_may_only_read_is_no_use_to_jails(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o640)
    assert ("chmod 660" in remedy(device)) is IS_ROOT


def _in_another_etc(place: Path, commands: str) -> None:
    """Run them where groups and users are a copy of this host's."""
    shutil.copytree("/etc", place, symlinks=True, dirs_exist_ok=True, ignore=lambda _, names: {*names} - _ACCOUNTS)
    with_it = f"mount --bind {place} /etc && {commands} && getent group kvm >/dev/null"
    subprocess.run(["unshare", "--mount", "sh", "-ec", with_it], check=True)


@pytest.mark.root("it makes a group, and gives the device to it, where nobody else sees that")
@pytest.mark.parametrize("gid", [0, 54321])
def test_advice_for_a_device_of_no_groups_can_be_followed_where_no_group_kvm_is(tmp_path: Path, gid: int) -> None:
    device = tmp_path / "kvm"
    device.touch(0o600)
    os.chown(device, 0, gid)
    advice = remedy(device).partition("open it: ")[2]
    assert ("groupadd --system kvm" in advice) is (not any(group.gr_name == "kvm" for group in grp.getgrall()))
    _in_another_etc(tmp_path / "etc", advice)
    assert device.stat().st_mode & 0o777 == 0o660
    assert device.stat().st_gid not in (0, gid)


@pytest.mark.root("it becomes another user")
def test_a_user_is_told_the_group_that_the_device_has() -> None:
    with tempfile.NamedTemporaryFile() as device:  # tmp_path is root's alone
        os.fchown(device.fileno(), 0, grp.getgrnam("adm").gr_gid)
        asked = f"from tests.unit.machine.test_accelerator import remedy, Path; print(remedy(Path('{device.name}')))"
        argv = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable, "-c", asked]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=PROJECT).stdout
        steps = f"chmod 660 {device.name} && usermod --append --groups adm nobody"
        assert said == f"let this user open {device.name}, as root: {steps}; then log in again\n"


def test_who_has_chosen_not_to_use_kvm_is_told_which_key_says_so(tmp_path: Path) -> None:
    chosen = MachineSection(accelerator="tcg")
    assert "machine.accelerator" in accelerator.remedy(chosen, NATIVE, tmp_path)
    other = next(name for name in architecture.KNOWN if name != NATIVE)
    assert "images.default" in accelerator.remedy(MachineSection(), other, tmp_path)
