"""The command line of a user-mode kernel, built by small pure functions.

Its machine is what QEMU's is: a root disk that forgets, the job's disk, disks to be read, three wires out.
Sources: the kernel's Documentation/virt/uml/user_mode_linux_howto_v2.rst, kernel-parameters.rst.
"""

from collections.abc import Mapping, Sequence

from construir_ftp.image import uml
from construir_ftp.machine import guest
from construir_ftp.machine.shape import Shape

PERL, LAUNCH = "/usr/bin/perl", f"/{uml.LAUNCH}"
KERNEL = f"/{uml.KERNEL}"
# The guest's serial lines, in this order; Uml.pm knows it, too.
WIRES = ("console", "control", "output")
# The kernel has sixteen places for disks, of which the root and the job have two.
MOST_READ_ONLY = 14
_CHANGES = "/var/tmp/changes"  # noqa: S108 - in the jail's own scratch place
# A file of changes has a header and a map with a bit for each sector (arch/um/drivers/cow_user.c).
_MAP_BITS = 512 * 8
_HEADER_BYTES = 2**20
# 0.7 s of every boot go into finding out which of several ways to compute a RAID's parity is the quickest.
_LEFT_OUT = "raid6_init"


def changes_bytes(root_bytes: int) -> int:
    """The most that the file with the changes to a root disk of this size can take."""
    return root_bytes + root_bytes // _MAP_BITS + _HEADER_BYTES


def argv(shape: Shape, root: int, wires: Mapping[str, int]) -> list[str]:
    """The words of the command line. `root` is the root disk's descriptor, `wires` are those of WIRES."""
    return [
        KERNEL,
        f"mem={shape.memory_bytes // 2**20}M",
        f"ubd0={_CHANGES},/proc/self/fd/{root}",
        *(f"ssl{line}=fd:{wires[name]}" for line, name in enumerate(WIRES)),
        # The guest's processes are held by seccomp(2); without it each would be traced (ptrace(2)).
        *("seccomp=on", "con=null", "ssl=null", "noreboot", "uml_dir=/var/tmp/uml", "hostfs=/usr/lib/uml/modules"),
        *_guest(shape),
    ]


def plug(paths: Sequence[str]) -> list[str]:
    """The management console's commands that put disks into a machine, by their paths in the jail: the job's, and those
    to be read.
    """
    disks = [f"ubd1={path},,{guest.JOB_SERIAL}" for path in paths[:1]]
    disks += [f"ubd{at}r={path},,{guest.read_only_serial(at - 2)}" for at, path in enumerate(paths[1:], 2)]
    return [f"config {disk}" for disk in disks]


def unplug(count: int) -> list[str]:
    """The commands that take so many disks out again."""
    return [f"remove ubd{at}" for at in range(1, 1 + count)]


def _guest(shape: Shape) -> list[str]:
    words = [
        "console=ttyS0",
        "quiet",
        "panic=-1",
        "mitigations=off",
        "audit=0",
        "lsm=",
        f"initcall_blacklist={_LEFT_OUT}",
    ]
    words += [f"worker_release={shape.base.manifest.uml}", f"initrd=/{uml.INITRD}", f"rdinit={PERL}"]
    return [*words, "--", "-I/", "-MUml", "/init"]
