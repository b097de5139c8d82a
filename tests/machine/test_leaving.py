"""What a job wrote is on its disk when its machine says `clean`, whatever the job has left behind; and a machine whose
disk lost a write never says so.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import msgspec
import pytest

from construir_ftp.diskimage import extfs
from construir_ftp.machine import outcome
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.outcome import MachineFault, Outcome
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from tests.support import machines
from tests.support.images import run
from tests.support.machines import LONG_S, assignment

Start = Callable[[], AbstractContextManager[Machine]]
# Each ends with the file that its result has to hold: FILE is three million bytes of noise, and its digest is printed.
WRITE = "head -c 3000000 /dev/urandom >{0} && sha256sum <{0}"
# device-mapper(4) without its tools: a linear target over a loop device, by the ioctls of linux/dm-ioctl.h.
MAP = r"""perl -e '
    open my $c, "+<", "/dev/mapper/control" or exit 9;
    sub ask { my ($number, $spec) = @_;
        my @head = (4, 0, 0, 16384, 312, $spec ? 1 : 0, 0, 0, 0, 0, 0);
        my $data = pack "L5 L l L2 L Q a128 a129 x7 a*", @head, "held", "", $spec;
        $data .= "\0" x (16384 - length $data);
        ioctl $c, 0xC138FD00 | $number, $data or exit 8 }
    ask(3, ""); ask(9, pack "Q Q l L a16 a*", 0, 16384, 0, 0, "linear", "/dev/loop0 0\0"); ask(6, "")' || exit 9
"""
MODPROBE = "for m in loop dm-mod; do modprobe -q $m || true; done\n"
CASES = {
    "a bind mount of the whole": f"mkdir -p /mnt/c; mount --bind /job /mnt/c; {WRITE}",
    "a bind mount upon itself": f"mount --bind /job /job; cd /job; {WRITE}",
    "bind mounts within bind mounts": (
        f"mkdir -p /mnt/c x/y; mount --bind /job /mnt/c; mount --bind /job/x /mnt/c/x/y; mount -t proc p x; {WRITE}"
    ),
    "a chroot with its file systems": (
        "mkdir -p root/proc root/sys root/dev root/tmp; mount -t proc p root/proc; mount -t sysfs s root/sys;"
        f"mount --rbind /dev root/dev; mount -t tmpfs t root/tmp; mount --bind /job root/tmp; {WRITE}"
    ),
    "a bind mount of one file": f"touch /mnt/f a; mount --bind a /mnt/f; {WRITE}",
    "a name with spaces and backslashes": f'd=\'/mnt/a b\\012\'; mkdir "$d"; mount --bind /job "$d"; {WRITE}',
    "an overlay whose changes are in /job": (
        "mkdir up work /mnt/o; modprobe overlay;"
        f"mount -t overlay o -o lowerdir=/usr/share,upperdir=up,workdir=work /mnt/o && touch /mnt/o/new; {WRITE}"
    ),
    "a pinned mount namespace": (
        "mkdir /run/ns; mount --bind /run/ns /run/ns; mount --make-private /run/ns; touch /run/ns/mnt;"
        f"unshare --mount=/run/ns/mnt true; {WRITE}"
    ),
    "a process in a namespace of its own": (
        f"unshare -m -p -f sh -c 'mount --bind /job /mnt; cd /mnt; exec sleep 1000' & sleep 1; {WRITE}"
    ),
    "open files": f"sleep 1000 >held & sleep 1000 3<held & {WRITE}",
    "an unlinked file that grows": f"exec 9>gone; rm gone; head -c 1000000 /dev/zero >&9; {WRITE}",
    "a swap file": f"dd if=/dev/zero of=swap bs=1M count=8; mkswap swap; swapon swap || exit 9; {WRITE}",
    "swap behind a full file system in memory": (
        "dd if=/dev/zero of=swap bs=1M count=24; mkswap swap; swapon swap || exit 9;"
        f"mount -t tmpfs -o size=100% t /mnt; head -c 430000000 /dev/zero >/mnt/full; {WRITE}"
    ),
    "a loop device": f"{MODPROBE} truncate -s 8M image; losetup /dev/loop0 image || exit 9; {WRITE}",
    "a file system on a loop device": (
        f"{MODPROBE} truncate -s 16M image; mke2fs -q -t ext4 image; mkdir /mnt/l; mount -o loop image /mnt/l || exit 9"
        f"; head -c 1000000 /dev/urandom >/mnt/l/inner; {WRITE}"
    ),
    "a loop device within a loop device": (
        f"{MODPROBE} truncate -s 16M image; mke2fs -q -t ext4 image; mkdir /mnt/l /mnt/m; mount -o loop image /mnt/l;"
        "truncate -s 8M /mnt/l/image; mke2fs -q -t ext4 /mnt/l/image; mount -o loop /mnt/l/image /mnt/m || exit 9;"
        f"head -c 1000000 /dev/urandom >/mnt/m/inner; {WRITE}"
    ),
    "a loop device whose name is gone": (
        f"{MODPROBE} truncate -s 8M image; losetup /dev/loop0 image || exit 9; rm /dev/loop0 /dev/vd*; {WRITE}"
    ),
    "a mapped device": f"{MODPROBE} truncate -s 8M image; losetup /dev/loop0 image || exit 9; {MAP} {WRITE}",
    "no /proc, /sys and /dev": f"{WRITE}; umount -l /dev; umount -l /sys; umount -l /proc",
    "covered /proc and /dev": f"{WRITE}; mount -t tmpfs t /dev; mount -t tmpfs t /proc",
    "a moved /proc": f"{WRITE}; mkdir /mnt/p; mount --move /proc /mnt/p",
    "itself unmounted": f"{WRITE}; cd /; umount -l /job",
    "a frozen file system": f"{WRITE}; sync; fsfreeze -f /job; touch /job/late & sleep 0.2",
    "a root that moved": f"{WRITE}; mount --bind /job /job; cd /job; mkdir -p old; pivot_root . old",
    "quotas and an accounting file": f"touch acct; accton acct 2>/dev/null || true; {WRITE}",
    "its own disk made read-only": f"{WRITE}; sync; blockdev --setro /dev/vdb; mount -o remount,ro /job",
    "nothing": WRITE,
}

# Those that depend most on the kernel: a usual machine has one of its own.
USUAL = (
    "a process in a namespace of its own",
    "a swap file",
    "a loop device within a loop device",
    "a loop device whose name is gone",
    "a mapped device",
    "a frozen file system",
    "nothing",
)


@pytest.fixture(scope="module", params=machines.KINDS, ids=["usual", "user-mode"])
def start(request: pytest.FixtureRequest, images: Path) -> Iterator[Start]:
    """What gives a machine of each kind: a clone, where there are any."""
    shape = machines.of_kind(request.param, images)
    if request.param:
        yield lambda: Machine.start(shape)
        return
    with closing(Template.build(shape, LONG_S)) as template:
        yield template.clone


def run_job(
    start: Start, place: Path, script: str, *, filesystem: str = "ext4", disk: Path | None = None, size: str = "64M"
) -> Ending:
    job = place / "job"
    job.mkdir()
    (job / "run.sh").write_text("#!/bin/sh\n" + script + "\n")
    (job / "run.sh").chmod(0o755)
    errand = Errand(hostname="leaving", filesystem=filesystem)
    task = assignment(place, job, errand=errand, timeout_s=300, idle_timeout_s=300)
    task.disk.unlink()
    task = msgspec.structs.replace(task, disk=disk or task.disk)
    run("mke2fs", "-q", "-t", filesystem, "-d", job, task.disk, size)
    task.disk.chmod(0o600)
    with start() as machine:
        return machine.run(task)


@pytest.mark.parametrize(
    ("name", "filesystem"),
    [*((name, "ext4") for name in CASES), ("a loop device", "ext2"), ("a root that moved", "ext2")],
)
def test_what_was_written_is_there_whatever_was_left(
    start: Start, tmp_path: Path, name: str, filesystem: str, request: pytest.FixtureRequest
) -> None:
    if "[usual" in request.node.name and name not in USUAL and not request.config.getoption("--all"):
        pytest.skip("seen with a user-mode machine, which takes a third of the time: only with --all")
    ending = run_job(start, tmp_path, CASES[name].replace("{0}", "written"), filesystem=filesystem)
    said = (tmp_path / "output.log").read_text() + (tmp_path / "console.log").read_text()
    assert outcome.judge(ending) == Outcome("success", "run.sh ended with exit status 0", 0), said
    with (tmp_path / "disk.img").open("rb") as file:
        image = extfs.Image(file)
        assert not image.ext.needs_repair
        written = image.find(b"written")
        assert written is not None
        assert hashlib.sha256(image.text(written)).hexdigest() in said
    run("e2fsck", "-fn", tmp_path / "disk.img")


def test_every_file_system_is_made_read_only_where_the_disk_can_not_be_freed(start: Start, tmp_path: Path) -> None:
    ending = run_job(start, tmp_path, CASES["a root that moved"].replace("{0}", "written"))
    assert ending.claims.clean
    assert "Emergency Remount R/O" in (tmp_path / "console.log").read_text()


# Fills the root disk in pieces of a megabyte of noise, each with its number, and reads all of them again from the disk.
FILL = """
open my $noise, '<', '/dev/urandom'; sysread $noise, my $piece, 2**20 - 8;
open my $big, '>', '/big'; my $count = 0;
$count++ while (syswrite $big, pack('Q', $count) . $piece) == 2**20;
1 while syswrite $big, $piece; print "refused: $!\\n";
close $big; system 'sync; echo 3 >/proc/sys/vm/drop_caches';
open $big, '<', '/big'; my ($good, $block) = (0, '');
$good++ while sysread($big, $block, 2**20) == 2**20 && $block eq pack('Q', $good) . $piece;
print $good == $count && $count > 500 ? "all there\\n" : "$good of $count\\n";
"""


def test_root_disk_promises_no_more_room_than_there_is(start: Start, tmp_path: Path) -> None:
    """It is filled to the last byte, and read again from the disk: nothing that was written is lost."""
    ending = run_job(start, tmp_path, f"cat >/run/fill <<'end'\n{FILL}\nend\nperl /run/fill")
    assert (tmp_path / "output.log").read_text() == "refused: No space left on device\nall there\n", ending
    assert ending.claims.clean
    assert "lost async page write" not in (tmp_path / "console.log").read_text()


@pytest.mark.root("mounts a small file system")
def test_write_that_the_host_did_not_take_is_no_success(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=8M", "small", place)
    try:
        ending = run_job(start, tmp_path, "head -c 20000000 /dev/urandom >data; exit 0", disk=place / "disk.img")
        assert (ending.claims.exit_code, ending.claims.unwritten, ending.claims.clean) == (0, "/job", False)
        assert isinstance(outcome.judge(ending), MachineFault)
    finally:
        run("umount", place)


@pytest.mark.parametrize(
    "place",
    [
        "mke2fs -q -t ext4 image; mkdir /mnt/l; mount -o loop image /mnt/l || exit 9; cd /mnt/l; exec >inner",
        "losetup /dev/loop0 image || exit 9; exec >/dev/loop0",
    ],
    ids=["a file system", "a device"],
)
def test_write_that_finds_no_room_below_a_loop_device_is_no_success(start: Start, tmp_path: Path, place: str) -> None:
    """The job's disk has 16 MiB, its file pretends to more, and who writes to it is not told."""
    script = f"{MODPROBE} truncate -s 75M image; {place}; head -c 25000000 /dev/urandom; exit 0"
    ending = run_job(start, tmp_path, script, size="16M")
    judged = outcome.judge(ending)
    assert isinstance(judged, Outcome)
    assert (judged.status, ending.claims.unwritten) == ("no-result", "within"), judged


def test_what_can_not_be_killed_keeps_nobody_waiting(start: Start, tmp_path: Path) -> None:
    """A process in a frozen control group, which lives on the job's disk."""
    script = """
        mkdir /mnt/f; mount -t cgroup -o freezer f /mnt/f || exit 9; mkdir /mnt/f/cold
        sleep 1000 >held & echo $! >/mnt/f/cold/cgroup.procs; echo FROZEN >/mnt/f/cold/freezer.state
        exit 3"""
    ending = run_job(start, tmp_path, script)
    assert (ending.claims.exit_code, ending.claims.clean, ending.killed) == (3, True, None)
