"""Promises of accelerator: what it says to do about KVM mends what is wrong with it."""

import os
from pathlib import Path

import pytest

from construir_ftp import architecture
from construir_ftp.config import MachineSection
from construir_ftp.machine import accelerator

NATIVE = architecture.native()
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


def test_who_has_chosen_not_to_use_kvm_is_told_which_key_says_so(tmp_path: Path) -> None:
    chosen = MachineSection(accelerator="tcg")
    assert "machine.accelerator" in accelerator.remedy(chosen, NATIVE, tmp_path)
    other = next(name for name in architecture.KNOWN if name != NATIVE)
    assert "images.default" in accelerator.remedy(MachineSection(), other, tmp_path)
