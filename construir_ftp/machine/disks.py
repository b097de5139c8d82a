"""The empty places for disks in a machine, and how a file gets into one once the machine has a job.

A machine is put together, and its template saved, long before anyone knows its disks. Each place is a device over an
empty node; the guest binds its driver only when it is told to, and by then the node is another one. The first place
is the job's; the others are for what the job depends on and can only be read.
"""

import os
from pathlib import Path

import msgspec

from construir_ftp.machine import guest, qmp

# What can be attached beside the job's disk: a microvm has 24 virtio-mmio places, four of which it has used up.
MOST_READ_ONLY = 18


class FdSet(msgspec.Struct):
    """What QEMU answers to add-fd."""

    number: int = msgspec.field(name="fdset-id")


def args(read_only: int, transport: str) -> list[str]:
    """QEMU's options for the job's place and `read_only` others; for `transport` see architecture."""
    places = [_place_args(guest.JOB_SERIAL, False, transport)]
    places += [_place_args(guest.read_only_serial(number), True, transport) for number in range(read_only)]
    return [word for place in places for word in place]


def _place_args(serial: str, is_read_only: bool, transport: str) -> list[str]:
    # raw always: probed, a job could carry a qcow2 header that names a file of the host. werror=report: the default
    # pauses the machine on a full disk until its deadline. Zeros and freed blocks become holes again.
    more = "read-only=on" if is_read_only else "discard=unmap,detect-zeroes=unmap"
    return [
        *("-blockdev", f"driver=null-co,node-name={serial}-file,size=0,read-zeroes=on"),
        *("-blockdev", f"driver=raw,node-name={serial},file={serial}-file,{more}"),
        *("-device", f"virtio-blk-{transport},drive={serial},serial={serial},werror=report,rerror=report"),
    ]


def insert(monitor: qmp.Monitor, job: int, read_only: tuple[Path, ...] = ()) -> None:
    """Put the job's file, an open descriptor, and files to be read into a machine whose guest has bound none of them.

    All go in as descriptors: nothing of the host's paths is to be seen from inside. Raises OSError, CommandError,
    MachineUnavailableError.
    """
    _put(monitor, guest.JOB_SERIAL, job, False)
    for number, path in enumerate(read_only):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _put(monitor, guest.read_only_serial(number), descriptor, True)
        finally:
            os.close(descriptor)


def _put(monitor: qmp.Monitor, place: str, descriptor: int, is_read_only: bool) -> None:
    fdset = monitor.ask_for(FdSet, "add-fd", fds=[descriptor]).number
    node = f"{place}-{fdset}"
    how: dict[str, object] = {"read-only": True} if is_read_only else {"discard": "unmap"}
    monitor.ask("blockdev-add", {"driver": "file", "node-name": node, "filename": f"/dev/fdset/{fdset}", **how})
    zeroes = {} if is_read_only else {"detect-zeroes": "unmap"}
    monitor.ask("blockdev-reopen", {"options": [{"driver": "raw", "node-name": place, "file": node, **how, **zeroes}]})
    monitor.ask("remove-fd", {"fdset-id": fdset})
