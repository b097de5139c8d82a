"""System call filters (seccomp(2)): one for everything in a jail, and a narrow one for what reads hostile bytes there.

The first, for bubblewrap's --seccomp, denies what nobody in a jail has any business with, which lets a process out of
its leash or deep into the kernel: new namespaces, mounts, sockets, tracing, keys, io_uring, and taking back the signal
that kills it when its owner dies. Everything else is allowed: QEMU brings a stricter sandbox of its own. The second
allows what a process needs that has its files open already, and denies all else.
"""

import errno
import functools
import platform
import struct

import msgspec

# Opcodes and answers: linux/bpf_common.h, linux/seccomp.h; offsets into struct seccomp_data.
LOAD, EQUAL, _ANY_BIT, _AT_LEAST, ANSWER = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, _KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE, FIRST, SECOND, THIRD = 0, 4, 16, 24, 32

# Every CLONE_NEW*, time included (clone(2), linux/sched.h).
_NEW_NAMESPACES = 0x7E020080
PR_SET_PDEATHSIG, SIGKILL = 1, 9
_PROT_EXEC = 4
# System calls numbered from here on are those of the x32 ABI, which nothing in Debian uses.
_X32 = 0x40000000

# The same on every machine (asm-generic/unistd.h): io_uring_*, open_tree to fspick, pidfd_getfd, process_madvise,
# mount_setattr, quotactl_fd.
_DENIED_EVERYWHERE = (*range(425, 434), 438, 440, 442, 443)


class _Machine(msgspec.Struct, frozen=True):
    """A machine's name in seccomp (linux/audit.h) and its numbers for some system calls."""

    name: int
    clone: int
    clone3: int
    prctl: int
    denied: tuple[int, ...]
    reading: tuple[int, ...]
    mapping: tuple[int, ...]


# In each list: ptrace, process_vm_readv, process_vm_writev, kcmp; unshare, setns, mount, umount2, pivot_root, chroot;
# socket; add_key, request_key, keyctl; bpf, perf_event_open, userfaultfd, fanotify_init; open_by_handle_at;
# init_module, finit_module, delete_module, kexec_load, kexec_file_load; swapon, swapoff, reboot, acct, quotactl,
# syslog, vhangup; sethostname, setdomainname, settimeofday, clock_settime, adjtimex, clock_adjtime; personality,
# move_pages, migrate_pages. On x86 also: iopl, ioperm, modify_ldt, uselib.
# Those a reader keeps: read, pread64, lseek, write, sendto, recvfrom; munmap, mremap, madvise, brk; futex, sched_yield,
# getrandom, clock_gettime, getpid, gettid; rt_sigaction, rt_sigprocmask, rt_sigreturn, restart_syscall; exit,
# exit_group. And, as long as it makes no code of its own: mmap, mprotect.
MACHINES = {
    "x86_64": _Machine(
        name=0xC000003E,
        clone=56,
        clone3=435,
        prctl=157,
        denied=(
            *(101, 310, 311, 312, 272, 308, 165, 166, 155, 161, 41, 248, 249, 250, 321, 298, 323, 300, 304),
            *(175, 313, 176, 246, 320, 167, 168, 169, 163, 179, 103, 153),
            *(170, 171, 164, 227, 159, 305, 135, 279, 256, 172, 173, 154, 134),
        ),
        reading=(
            *(0, 17, 8, 1, 44, 45, 11, 25, 28, 12, 202, 24),
            *(318, 228, 39, 186, 13, 14, 15, 219, 60, 231),
        ),
        mapping=(9, 10),
    ),
    "aarch64": _Machine(
        name=0xC00000B7,
        clone=220,
        clone3=435,
        prctl=167,
        denied=(
            *(117, 270, 271, 272, 97, 268, 40, 39, 41, 51, 198, 217, 218, 219, 280, 241, 282, 262, 265),
            *(105, 273, 106, 104, 294, 224, 225, 142, 89, 60, 116, 58),
            *(161, 162, 170, 112, 171, 266, 92, 239, 238),
        ),
        reading=(
            *(63, 67, 62, 64, 206, 207, 215, 216, 233, 214, 98, 124),
            *(278, 113, 172, 178, 134, 135, 139, 128, 93, 94),
        ),
        mapping=(222, 226),
    ),
}


def program(machine: str | None = None, spared: int | None = None) -> bytes | None:
    """The filter for this machine (or the one named as uname -m would), None where its system calls aren't known.

    One system call can be spared, which a narrower filter is to deal with.
    """
    known = MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    words = [
        *only(known.name),
        *_unless_at_least(_X32),
        *(word for number in (*known.denied, *_DENIED_EVERYWHERE) if number != spared for word in _deny(number)),
        # Its flags are in memory, out of a filter's sight: C libraries fall back to clone() on this answer.
        *(instruction(EQUAL, known.clone3, if_not=1), instruction(ANSWER, ERRNO | errno.ENOSYS)),
        *deny_new_namespaces(known.clone),
        *_deny_slipping_the_leash(known.prctl),
        instruction(ANSWER, ALLOW),
    ]
    return b"".join(words)


@functools.cache
def reader(machine: str | None = None) -> bytes | None:
    """The narrow filter: what is not needed to read open files, compute, answer and end fails with EPERM.

    No process can be signalled, traced or made, nothing opened, no code but what is mapped already run.
    """
    known = MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    words = [
        *only(known.name),
        *(
            word
            for number in known.reading
            for word in (instruction(EQUAL, number, if_not=1), instruction(ANSWER, ALLOW))
        ),
        *(word for number in known.mapping for word in _allow_without_code(number)),
        instruction(ANSWER, ERRNO | errno.EPERM),
    ]
    return b"".join(words)


def instruction(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """One instruction (struct sock_filter); the jumps are over so many instructions."""
    return struct.pack("=HBBI", code, if_so, if_not, value)


def only(machine_name: int) -> list[bytes]:
    """Another machine's system calls (32-bit code on a 64-bit kernel) are numbered otherwise: killed."""
    return [
        instruction(LOAD, _MACHINE),
        instruction(EQUAL, machine_name, if_so=1),
        instruction(ANSWER, _KILL),
        instruction(LOAD, _NUMBER),
    ]


def _unless_at_least(number: int) -> list[bytes]:
    return [instruction(_AT_LEAST, number, if_not=1), instruction(ANSWER, ERRNO | errno.EPERM)]


def _deny(number: int) -> list[bytes]:
    return [instruction(EQUAL, number, if_not=1), instruction(ANSWER, ERRNO | errno.EPERM)]


def deny_new_namespaces(clone: int) -> list[bytes]:
    """Of clone(2) all but new namespaces."""
    return [
        instruction(EQUAL, clone, if_not=4),
        instruction(LOAD, FIRST),
        instruction(_ANY_BIT, _NEW_NAMESPACES, if_not=1),
        instruction(ANSWER, ERRNO | errno.EPERM),
        instruction(ANSWER, ALLOW),
    ]


def _deny_slipping_the_leash(prctl: int) -> list[bytes]:
    """Of prctl(PR_SET_PDEATHSIG) only what sets it to SIGKILL."""
    return [
        instruction(EQUAL, prctl, if_not=6),
        instruction(LOAD, FIRST),
        instruction(EQUAL, PR_SET_PDEATHSIG, if_not=3),
        instruction(LOAD, SECOND),
        instruction(EQUAL, SIGKILL, if_so=1),
        instruction(ANSWER, ERRNO | errno.EPERM),
        instruction(ANSWER, ALLOW),
    ]


def _allow_without_code(number: int) -> list[bytes]:
    """mmap(2) and mprotect(2) have what is to be allowed in the memory, PROT_..., as their third argument."""
    return [
        instruction(EQUAL, number, if_not=4),
        instruction(LOAD, THIRD),
        instruction(_ANY_BIT, _PROT_EXEC, if_not=1),
        instruction(ANSWER, ERRNO | errno.EPERM),
        instruction(ANSWER, ALLOW),
    ]
