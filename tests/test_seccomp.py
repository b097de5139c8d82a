"""The filter denies what it says."""

import re
from pathlib import Path

import pytest

from construir_ftp.jail import seccomp

NAMES = """
    ptrace process_vm_readv process_vm_writev kcmp unshare setns mount umount2 pivot_root chroot socket
    add_key request_key keyctl bpf perf_event_open userfaultfd fanotify_init open_by_handle_at
    init_module finit_module delete_module kexec_load kexec_file_load swapon swapoff reboot acct quotactl syslog vhangup
    sethostname setdomainname settimeofday clock_settime adjtimex clock_adjtime personality move_pages migrate_pages
    """
HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), "iopl ioperm modify_ldt uselib"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), ""),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_filter_denies_what_it_means_to(machine: str) -> None:
    """The numbers are those of the kernel's headers."""
    header, more = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is missing; it comes with linux-libc-dev")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    known = seccomp.MACHINES[machine]
    assert known.denied == tuple(int(numbers[name]) for name in f"{NAMES} {more}".split())
    assert [known.clone, known.clone3, known.prctl] == [int(numbers[name]) for name in ("clone", "clone3", "prctl")]


def test_a_machine_whose_system_calls_are_not_known_has_no_filter() -> None:
    assert seccomp.program("vax") is None
