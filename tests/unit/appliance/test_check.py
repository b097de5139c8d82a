"""Promises of check: what it says to do can be done where it says so."""

import os
from pathlib import Path

import pytest

from construir_ftp import architecture
from construir_ftp.appliance import check
from construir_ftp.config import MachineSection

AUTO = MachineSection()


def test_a_missing_kvm_is_not_mended_by_permissions(tmp_path: Path) -> None:
    words = check.kvm_remedy(AUTO, tmp_path / "kvm", architecture.native())
    assert "firmware" in words
    assert "usermod" not in words


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_kvm_that_only_others_may_open_names_its_group(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch(0o000)
    assert f"usermod --append --groups {device.group()} USER" in check.kvm_remedy(AUTO, device, architecture.native())


def test_a_kvm_that_may_be_opened_needs_no_permission(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    words = check.kvm_remedy(AUTO, tmp_path / "kvm", architecture.native())
    assert words.startswith(f"{tmp_path}/kvm opens, but boots nothing")


def test_who_has_chosen_not_to_use_kvm_is_told_which_key_says_so(tmp_path: Path) -> None:
    assert "machine.accelerator" in check.kvm_remedy(MachineSection(accelerator="tcg"), tmp_path, architecture.native())
    other = next(name for name in architecture.KNOWN if name != architecture.native())
    assert "images.default" in check.kvm_remedy(AUTO, tmp_path, other)
