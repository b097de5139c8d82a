"""The wall around a user-mode kernel: the worst program there could be in its place, and all that it can't do.

It is Perl, out of the same tree, started as the kernel is: by the same program, in the same cell, behind the same
filter, with the same descriptors.
"""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jail import cell, jail, user_mode
from construir_ftp.jail.cell import Cell
from construir_ftp.machine import uml, vm
from tests.support import machines
from tests.support.places import JOBS
from tests.support.prison import MIB, nothing_left

MEMORY, CHANGES, DISK = 64 * MIB, 16 * MIB, 4 * MIB
# What each call, by its number on x86-64, is refused with: EPERM, or ENOSYS where C libraries fall back on that.
REFUSED = {
    "tracing itself": "101, 0, 0, 0, 0",
    "tracing another": "101, 16, 1, 0, 0",
    "reading another's memory": "310, 1, 0, 0, 0, 0, 0",
    "writing another's memory": "311, 1, 0, 0, 0, 0, 0",
    "a socket of the network": "41, 2, 1, 0",
    "a datagram socket of the network": "41, 2, 2, 0",
    "a socket of IPv6": "41, 10, 1, 0",
    "a socket of this host": "41, 1, 1, 0",
    "a socket to the kernel": "41, 16, 3, 0",
    "a raw packet socket": "41, 17, 3, 0",
    "a pair of other sockets": "53, 2, 1, 0, $zeros",
    "connecting": "42, 0, $zeros, 16",
    "listening": "50, 0, 1",
    "a program by its name": "59, $shell, 0, 0",
    "a program by its name, the other way": "322, -100, $shell, 0, 0, 0",
    "a new user namespace": "272, 0x10000000",
    "a new network namespace": "272, 0x40000000",
    "a new mount namespace": "272, 0x20000",
    "a process in a new user namespace": "56, 0x10000011, 0, 0, 0, 0",
    "a process in a new network namespace": "56, 0x40000011, 0, 0, 0, 0",
    "another's namespace": "308, 0, 0",
    "a mount": "165, $shell, $shell, $shell, 0, 0",
    "a mount, the newer way": "430, $shell, 0",
    "taking a mount away": "166, $shell, 0",
    "another root": "155, $shell, $shell",
    "a chroot": "161, $shell",
    "another's uid": "105, 0",
    "another's gid": "106, 0",
    "capabilities": "126, $zeros, $zeros",
    "an older limit": "160, 7, $zeros",
    "a limit": "302, 0, 7, $zeros, 0",
    "another processor": "203, 0, 128, $zeros",
    "another priority": "141, 0, 0, 0",
    "a file by its handle": "304, 0, $zeros, 0",
    "a program in the kernel": "321, 0, $zeros, 120",
    "measuring the processor": "298, $zeros, 0, -1, -1, 0",
    "a ring of requests": "425, 8, $zeros",
    "handling faults": "323, 0",
    "a key": "248, $shell, $shell, $zeros, 1, -2",
    "the kernel's keys": "250, 0, -2, 0, 0, 0",
    "another kernel": "246, 0, 0, $zeros, 0",
    "a module": "175, $zeros, 64, $zeros",
    "a restart": "169, 0xfee1dead, 672274793, 0, 0",
    "another kind of process": "135, 0x20000",
    "surviving its owner": "157, 1, 0, 0, 0, 0",
    "another seat": "157, 4, 1, 0, 0, 0",
    "typing on a terminal": "16, 0, 0x5412, $zeros",
    "a block device's size": "16, 0, 0x1260, $zeros",
    "a queue of messages": "240, $shell, 0, 0, 0",
    "memory that outlives it": "29, 0, 4096, 0x380",
    "a device": "133, $shell, 0, 0",
    "a link to a file": "86, $shell, $shell",
    "another name": "82, $shell, $shell",
    "another owner": "92, $shell, 0, 0",
    "another mode": "90, $shell, 0",
    "watching files": "254, 0, $zeros, 1",
    "the kernel's log": "103, 3, $zeros, 64",
    "the clock": "227, 0, $zeros",
    "swap": "167, $shell, 0",
    "raw ports": "172, 3",
    "a process without a way back": "435, $zeros, 64",
}
FILES = r"""
    for my $path ('/usr/bin/new', '/new', '/etc/new', '/dev/new', '/usr/bin/sh', "/proc/self/fd/$ARGV[2]", $ARGV[3]) {
        print "write $path: ", (open(my $file, '+>>', $path) ? 'opened' : 'refused'), "\n";
    }
    for my $path ('/home', '/root', '/etc/passwd', '/var/lib', '/sys/kernel', '/dev/kvm', '/dev/sda', '/run') {
        print "see $path: ", (-e $path ? 'there' : 'absent'), "\n";
    }
    opendir my $processes, '/proc';
    print 'processes: ', join(' ', sort grep { /^\d+$/ } readdir $processes), "\n";
    open my $pattern, '>', '/proc/sys/kernel/core_pattern' or print "core_pattern: refused\n";
    print $pattern '|/bin/x' if $pattern;
    close $pattern or print "core_pattern: not written\n" if $pattern;
"""
# What it is told when it asks for the socket of its console, at first and again; the end that it gets is the one whose
# other end is ours.
CONSOLE = r"""
    my $console = syscall 41, 1, 2, 0;
    print 'socket: ', ($console == $ARGV[0] ? 'its own' : $console), "\n";
    print 'name: ', syscall(49, $console, my $name = "\1\0/var/tmp/x\0", 13), "\n";
    print 'made: ', (-e '/var/tmp/x' ? 'yes' : 'no'), "\n";
    print 'again: ', (syscall(41, 1, 2, 0) == $ARGV[0] ? 'the same' : 'another'), "\n";
    $! = 0;
    print 'to somebody: ', syscall(44, $console, my $word = 'x', 1, 0, my $whom = "\1\0/x\0", 5), ' ', $! + 0, "\n";
"""
LATE_CONSOLE = r"""
    $! = 0;
    print syscall(41, 1, 2, 0), ' ', $! + 0, "\n";
"""
# Of each process but what waits for all, whether it is under as many filters as this one.
FILTERS = r"""
    sub filters {
        open my $status, '<', "/proc/$_[0]/status" or return '';
        return (grep { /^Seccomp_filters/ } <$status>)[0];
    }
    opendir my $processes, '/proc';
    for my $pid (grep { /^\d+$/ && $_ > 1 } readdir $processes) {
        print filters($pid) eq filters($$) ? 'same ' : 'other ';
    }
"""
FILLS = r"""
    $SIG{XFSZ} = 'IGNORE';
    my ($block, $count) = ('x' x 65536, 0);
    for my $name (1 .. 8) {
        open my $file, '>', "/var/tmp/$name" or die;
        while (my $written = syswrite $file, $block) { $count += $written }
    }
    print "$count\n";
"""
FORKS = r"""
    my $count = 0;
    while (defined(my $pid = fork)) { if (!$pid) { sleep 1000; exit } last if ++$count > 100000 }
    print "$count\n";
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(scope="module")
def kind(uml_base: BaseImage) -> Cell:
    """The cell of a small machine."""
    return cell.user_mode_machine(uml_base.uml, disk_bytes=DISK, memory_bytes=MEMORY, changes_bytes=CHANGES)


def in_place_of_the_kernel(kind: Cell, root: Path, code: str, order: bytes = b"") -> str:
    """What a program in Perl says that is started where a kernel would be; its arguments are the descriptors
    of its management console, of its orders, of which the first may wait, and of the root disk, and the path of that.
    """
    console, monitor = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours, orders = socket.socketpair()
    ours.sendall(order)
    narrow, write_end = os.pipe()
    disk = os.open(root, os.O_RDONLY)
    os.write(write_end, user_mode.program() or b"")
    os.close(write_end)
    fds = [monitor.fileno(), orders.fileno(), narrow]
    try:
        argv = [uml.PERL, uml.LAUNCH, *map(str, fds), uml.PERL, "-e", code, *map(str, (*fds[:2], disk)), str(root)]
        with jail.host().hold(
            kind, argv, pass_fds=[*fds, disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as prisoner:
            output, _ = prisoner.process.communicate(timeout=120)
    finally:
        for end in (console, monitor, ours, orders):
            end.close()
        for descriptor in (narrow, disk):
            os.close(descriptor)
    return re.sub(r"(?s)^perl: warning.*?\(\"C\"\)\.\n", "", output.decode())


def test_what_a_kernel_does_not_need_is_refused(kind: Cell, uml_base: BaseImage) -> None:
    code = "my ($zeros, $shell, $was) = (\"\\0\" x 256, '/usr/bin/sh');\n"
    for name, call in REFUSED.items():
        code += f'$! = 0; $was = syscall {call}; print "{name}: $was ", $! + 0, "\\n";\n'
    said = in_place_of_the_kernel(kind, uml_base.root, code)
    answers = dict(line.split(": ") for line in said.splitlines())
    assert answers == {name: "-1 38" if name == "a process without a way back" else "-1 1" for name in REFUSED}, said


def test_socket_of_its_console_is_one_that_it_has_inherited_and_there_is_no_other(
    kind: Cell, uml_base: BaseImage
) -> None:
    said = in_place_of_the_kernel(kind, uml_base.root, CONSOLE).splitlines()
    assert said == ["socket: its own", "name: 0", "made: no", "again: the same", "to somebody: -1 1"]


def test_once_there_are_orders_there_is_no_socket_at_all(kind: Cell, uml_base: BaseImage) -> None:
    assert in_place_of_the_kernel(kind, uml_base.root, LATE_CONSOLE, b"!") == "-1 38\n"


def test_what_keeps_its_disks_is_behind_the_same_filter(kind: Cell, uml_base: BaseImage) -> None:
    assert in_place_of_the_kernel(kind, uml_base.root, FILTERS).split() == ["same", "same"]


def test_nothing_can_be_written_and_nothing_seen_but_its_own(kind: Cell, uml_base: BaseImage) -> None:
    said = in_place_of_the_kernel(kind, uml_base.root, FILES).splitlines()
    assert [line for line in said if line.startswith("write") and "refused" not in line] == []
    assert [line for line in said if line.startswith("see") and "absent" not in line] == []
    assert len(said) >= 17
    (processes,) = [line for line in said if line.startswith("processes")]
    assert len(processes.split()) <= 4  # what waits for it, what keeps its disks, and itself
    assert any(line.startswith("core_pattern") for line in said)


@pytest.mark.usefixtures("uml_base")
def test_a_whole_machine_runs_in_its_cell(images: Path, tmp_path: Path) -> None:
    ending, task = None, machines.assignment(tmp_path, JOBS / "hello")
    with vm.Machine.start(machines.of_kind("uml", images)) as machine:
        machine.wait_until_ready(60)
        ending = machine.run(task)
    assert (ending.claims.exit_code, ending.claims.clean, ending.status) == (0, True, 0), ending
    assert task.output.read_bytes().startswith(b"hello from Linux")


def test_what_it_writes_ends_at_the_size_of_its_memory(kind: Cell, uml_base: BaseImage) -> None:
    written = int(in_place_of_the_kernel(kind, uml_base.root, FILLS))
    assert written <= MEMORY + CHANGES + 16 * MIB


def test_its_processes_end_at_their_limit(kind: Cell, uml_base: BaseImage) -> None:
    assert kind.limits.processes is not None
    assert int(in_place_of_the_kernel(kind, uml_base.root, FORKS)) < kind.limits.processes
