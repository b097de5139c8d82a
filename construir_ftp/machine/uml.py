"""The command line of a user-mode kernel, built by small pure functions.

Its machine is what QEMU's is: a root disk that forgets, the job's disk, disks to be read, three wires out.
Sources: the kernel's Documentation/virt/uml/user_mode_linux_howto_v2.rst, kernel-parameters.rst.
"""

from collections.abc import Mapping

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


def argv(shape: Shape, wires: Mapping[str, int], disks: int) -> list[str]:
    """The words of the command line. {0} stands for the path of the root disk's descriptor, {1} for the job's, and so
    on.

    `wires` are the descriptors of WIRES; `disks` is how many there are beside the root, the job's first.
    """
    return [
        KERNEL,
        f"mem={shape.memory_bytes // 2**20}M",
        *_disks(disks),
        *(f"ssl{line}=fd:{wires[name]}" for line, name in enumerate(WIRES)),
        # The guest's processes are held by seccomp(2); without it each would be traced (ptrace(2)).
        *("seccomp=on", "con=null", "ssl=null", "noreboot", "uml_dir=/var/tmp/uml", "hostfs=/usr/lib/uml/modules"),
        *_guest(shape),
    ]


def _disks(count: int) -> list[str]:
    words = [f"ubd0={_CHANGES},{{0}}", f"ubd1={{1}},,{guest.JOB_SERIAL}"][: 1 + count]
    return words + [f"ubd{at}r={{{at}}},,{guest.read_only_serial(at - 2)}" for at in range(2, 1 + count)]


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
