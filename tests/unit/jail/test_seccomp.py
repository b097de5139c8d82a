"""The filter denies what it says."""

import re
from pathlib import Path

import pytest

from construir_ftp.jail import seccomp, user_mode

NAMES = """
    ptrace process_vm_readv process_vm_writev kcmp unshare setns mount umount2 pivot_root chroot socket
    add_key request_key keyctl bpf perf_event_open userfaultfd fanotify_init open_by_handle_at
    init_module finit_module delete_module kexec_load kexec_file_load swapon swapoff reboot acct quotactl syslog vhangup
    sethostname setdomainname settimeofday clock_settime adjtimex clock_adjtime personality move_pages migrate_pages
    """
READING = """
    read pread64 lseek write sendto recvfrom munmap mremap madvise brk futex sched_yield
    getrandom clock_gettime getpid gettid rt_sigaction rt_sigprocmask rt_sigreturn restart_syscall exit exit_group
    """
HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), "iopl ioperm modify_ldt uselib"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), ""),
}


def header(machine: str) -> dict[str, int]:
    """The numbers of system calls, as the kernel's headers have them."""
    path = HEADERS[machine][0]
    if not path.exists():
        pytest.skip(f"{path} is missing; it comes with linux-libc-dev")
    return {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_filter_denies_what_it_means_to(machine: str) -> None:
    """The numbers are those of the kernel's headers."""
    known, numbers = seccomp.MACHINES[machine], header(machine)
    assert known.denied == tuple(numbers[name] for name in f"{NAMES} {HEADERS[machine][1]}".split())
    assert [known.clone, known.clone3, known.prctl] == [numbers[name] for name in ("clone", "clone3", "prctl")]


@pytest.mark.parametrize("machine", HEADERS)
def test_a_reader_keeps_what_it_means_to(machine: str) -> None:
    """The numbers are those of the kernel's headers."""
    known, numbers = seccomp.MACHINES[machine], header(machine)
    assert known.reading == tuple(numbers[name] for name in READING.split())
    assert known.mapping == (numbers["mmap"], numbers["mprotect"])


def test_a_machine_whose_system_calls_are_not_known_has_no_filter() -> None:
    assert seccomp.program("vax") is None
    assert seccomp.reader("vax") is None
    assert user_mode.program("vax") is None


def test_a_user_mode_kernel_keeps_what_it_means_to() -> None:
    """The numbers are those of the kernel's headers."""
    numbers = header("x86_64")
    listed = {**user_mode.ALLOWED, **user_mode.PARTLY}
    assert listed == {name: numbers[name] for name in listed}
