"""Every jail of root's has a uid that no other has."""

import os
import stat
from pathlib import Path

import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.jail import jail, seccomp, uids
from construir_ftp.jail.bubblewrap import Means
from construir_ftp.jail.cell import Cell
from construir_ftp.jail.jail import Jail
from tests.support.prison import run


@pytest.mark.root("only root has uids to give")
def test_uids_are_not_given_twice_and_come_back() -> None:
    few = range(jail.UIDS.stop - 2, jail.UIDS.stop)
    with uids.lease(few) as one, uids.lease(few) as other:
        assert {one, other} == set(few)
        with pytest.raises(ConstruirError, match="taken"), uids.lease(few):
            pass
    with uids.lease(few) as again:
        assert again in few


@pytest.mark.root("only root has uids to give")
def test_a_device_of_a_group_can_be_used_if_it_is_given(tmp_path: Path) -> None:
    """As /dev/kvm is, which belongs to the group kvm."""
    gid = 54321
    device = tmp_path / "device"
    try:
        os.mknod(device, stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError as error:
        pytest.skip(f"no device can be made here: {error}")
    os.chown(device, 0, gid)
    device.chmod(0o660)
    assert uids.groups((device, Path("/dev/null"), tmp_path / "none")) == [gid]
    userns = uids.namespace(jail.UIDS, [gid])
    prison = Jail(Means(walls="root", uids=jail.UIDS, userns=userns, filter=seccomp.program()))
    try:
        status, said = run(prison, Cell(devices=(device,)), ["sh", "-c", f"id -G; echo hello >{device}"])
        assert (status, said.split()[1:]) == (0, [str(gid)])
    finally:
        os.close(userns)


@pytest.mark.root("only root has uids to give")
def test_a_uid_that_is_not_mapped_is_known_not_to_be() -> None:
    assert uids.are_mapped(range(1)) == uids.are_mapped(range(jail.UIDS.stop))
    assert not uids.are_mapped(range(2**32 - 10, 2**32 + 10))
