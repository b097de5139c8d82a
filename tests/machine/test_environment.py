"""What a build expects to find in a machine, and what it is told when the machine ends it."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import msgspec
import pytest

from construir_ftp.architecture import native
from construir_ftp.jobs.result import Status
from construir_ftp.machine import outcome
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.outcome import Outcome
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from tests.support import machines
from tests.support.images import run
from tests.support.machines import LONG_S, assignment

MEMORY = 192 * 2**20
Start = Callable[[], AbstractContextManager[Machine]]
OTHER_USER = "setpriv --reuid=65534 --regid=65534 --clear-groups"
# Each is a shell's command that succeeds in the machine of a job; all run in one machine.
EXPECTED = {
    "the job leads a session of its own": '[ "$(ps -o sid= -p $JOB | tr -d " ")" = "$JOB" ]',
    "another user opens /dev/stdout": f"{OTHER_USER} sh -c 'echo said by another >/dev/stdout'",
    "another user opens /dev/stderr": f"{OTHER_USER} sh -c 'echo said by another >/dev/stderr'",
    "another user opens the output by its descriptor": f"{OTHER_USER} sh -c 'echo by descriptor >/proc/self/fd/1'",
    "another user reads /dev/stdin": f"{OTHER_USER} cat /dev/stdin",
    "another user opens /dev/null, zero and urandom": (
        f"{OTHER_USER} sh -c 'head -c 1 /dev/zero /dev/urandom >/dev/null'"
    ),
    "a loop device is made at first use": (
        "truncate -s 1M /tmp/image && device=$(losetup --find --show /tmp/image) && losetup --detach $device"
    ),
    "fuse is there at first use, for anyone": (
        f"{OTHER_USER} sh -c ': <>/dev/fuse' && grep -qw fuse /proc/filesystems && [ $(stat -c %a /dev/fuse) = 666 ]"
    ),
    "tun is there at first use": ": <>/dev/net/tun && [ $(stat -c %a /dev/net/tun) = 666 ]",
    "device-mapper is there at first use": ": <>/dev/mapper/control && grep -qw device-mapper /proc/misc",
    "a module that mount needs is loaded": (
        "mkdir /tmp/m && mount -t overlay -o lowerdir=/etc:/usr o /tmp/m && umount /tmp/m"
    ),
    "what is mounted is in mtab": "grep -q '^/dev/[a-z]* /job ' /etc/mtab",
    "another user has user namespaces": f"{OTHER_USER} unshare --user --map-root-user true",
    "partitions of a loop device": (
        "perl -e 'print pack \"x446 x4 C x3 V2 x48 v\", 0x83, 2048, 4096, 0xaa55' >/tmp/p && truncate -s 8M /tmp/p"
        " && device=$(losetup --find --partscan --show /tmp/p) && [ -b ${device}p1 ] && losetup --detach $device"
    ),
    "a million files": '[ "$(ulimit -Hn)" = 1048576 ] && [ "$(ulimit -Sn)" = 1024 ]',
    "a million files of another user": f"{OTHER_USER} sh -c 'ulimit -n 1048576'",
    "control groups, version 2": (
        "cd /sys/fs/cgroup && grep -qw memory cgroup.controllers && echo +memory +pids >cgroup.subtree_control"
        " && mkdir a && echo 1000000 >a/memory.max && sh -c 'echo $$ >a/cgroup.procs; grep -qx 0::/a /proc/self/cgroup'"
    ),
    "modes of what is in memory": (
        '[ "$(stat -c %a /run /run/lock /dev/shm /tmp /var/tmp | tr "\\n" " ")" = "755 1777 1777 1777 1777 " ]'
    ),
    "no umask but the usual": '[ "$(umask)" = 0022 ]',
    "hostname -f": '[ "$(hostname -f)" = environment ] && [ "$(hostname)" = environment ]',
    "its own name leads to itself": "getent hosts environment | grep -q 127.0.1.1",
    "localhost by both protocols": (
        "getent ahosts localhost | grep -q 127.0.0.1 && getent ahosts localhost | grep -q ::1"
    ),
    "ip6-loopback": "getent hosts ip6-loopback | grep -q ::1",
    "the own address can be talked to": (
        "perl -MSocket -e 'socket my $s, PF_INET, SOCK_STREAM, 0;"
        ' bind $s, sockaddr_in(0, inet_aton("127.0.1.1")) or exit 1\''
    ),
    "directories of manual pages": "[ -d /usr/share/man/man1 ] && [ -d /usr/share/info ] && [ -d /usr/share/locale ]",
    "packages of jobs keep what programs open": "! grep -E 'locale|lib/modules' /etc/dpkg/dpkg.cfg.d/*",
}
if native() == "amd64":
    EXPECTED["x86-64-v2"] = "/lib64/ld-linux-x86-64.so.2 --help | grep -q 'x86-64-v2 (supported'"

# How a job ends: its script, how long it may take, and the reason that its contributor gets.
PERL_EATS = "perl -e 'push @all, \"x\" x 100000000 while 1'"
OOM = "; the machine ran out of memory and killed perl: ask for more by `memory`"
ENDS: dict[str, tuple[str, Status, int | None, str]] = {
    "killed": ("kill -SEGV $$", "failed", 139, "run.sh was killed by SIGSEGV"),
    "aborted": ("kill -ABRT $$", "failed", 134, "run.sh was killed by SIGABRT"),
    "a real-time signal": ("kill -40 $$", "failed", 168, "run.sh was killed by signal 40"),
    "a program in it was killed": (
        "sh -c 'kill -ILL $$'",
        "failed",
        132,
        "run.sh ended with exit status 132: a program in it was killed by SIGILL",
    ),
    "an odd exit status": ("exit 255", "failed", 255, "run.sh ended with exit status 255"),
    "out of memory": (
        PERL_EATS,
        "failed",
        137,
        f"run.sh ended with exit status 137: a program in it was killed by SIGKILL{OOM}",
    ),
    "out of memory that no process has": (
        "mount -t tmpfs -o size=100% t /mnt; exec head -c 1G /dev/zero >/mnt/a",
        "failed",
        137,
        f"run.sh was killed by SIGKILL{OOM.replace('perl', 'head')}",
    ),
    "out of memory that files of a ramfs have": (
        "mount -t ramfs r /mnt; exec head -c 1G /dev/zero >/mnt/a",
        "failed",
        137,
        f"run.sh was killed by SIGKILL{OOM.replace('perl', 'head')}",
    ),
    "out of memory by what the machine itself has mounted": (
        "mount -o remount,size=100% /run; mkdir -p /run/a/.b; exec head -c 1G /dev/zero >/run/a/.b/c",
        "failed",
        137,
        f"run.sh was killed by SIGKILL{OOM.replace('perl', 'head')}",
    ),
    "out of shared memory of System V": (
        "exec perl -e 'for (1 .. 64) { my $id = shmget 0, 2e7, 01600; shmwrite $id, \"x\" x 2e7, 0, 2e7 }'",
        "failed",
        137,
        f"run.sh was killed by SIGKILL{OOM}",
    ),
    "out of memory, and all is well": (f"{PERL_EATS} || true", "success", 0, "run.sh ended with exit status 0"),
    "out of its own group's memory": (
        "cd /sys/fs/cgroup; echo +memory >cgroup.subtree_control; mkdir a; echo 30000000 >a/memory.max;"
        f"echo $$ >a/cgroup.procs; exec {PERL_EATS}",
        "failed",
        137,
        "run.sh was killed by SIGKILL",
    ),
    "poweroff": ("poweroff", "failed", 137, "run.sh was ended by poweroff, which kills it; let it end by itself"),
    "poweroff in the background": (
        "poweroff & sleep 60",
        "failed",
        137,
        "run.sh was ended by poweroff, which kills it; let it end by itself",
    ),
    "switched off": (
        "busybox poweroff -f",
        "no-result",
        None,
        "the machine ended before run.sh did: it was switched off from within",
    ),
    "restarted": (
        "busybox reboot -f",
        "no-result",
        None,
        "the machine ended before run.sh did: it was restarted from within",
    ),
    "a panic": (
        "echo c >/proc/sysrq-trigger",
        "no-result",
        None,
        "the machine ended before run.sh did: its kernel panicked (sysrq triggered crash)",
    ),
    "too long": ("sleep 60", "timeout", None, "run.sh had not ended after 3 s (timeout); the machine was killed"),
    "silent": (
        "echo a; sleep 60",
        "idle-timeout",
        None,
        "run.sh printed nothing for 2 s (idle_timeout); the machine was killed",
    ),
}

# Those that depend most on the kernel, or on what runs the machine.
USUAL = (
    "killed",
    "out of memory",
    "out of memory that no process has",
    "out of its own group's memory",
    "poweroff",
    "switched off",
    "restarted",
    "a panic",
    "too long",
    "silent",
)


@pytest.fixture(scope="module", params=machines.KINDS, ids=["usual", "user-mode"])
def start(request: pytest.FixtureRequest, images: Path) -> Iterator[Start]:
    """What gives a machine of each kind, a small one, whose memory is to be filled: a clone, where there are any."""
    shape = msgspec.structs.replace(machines.of_kind(request.param, images), memory_bytes=MEMORY)
    if request.param:
        yield lambda: Machine.start(shape)
        return
    with closing(Template.build(shape, LONG_S)) as template:
        yield template.clone


def run_job(start: Start, place: Path, script: str, *, timeout_s: float = LONG_S, idle_s: float = LONG_S) -> Ending:
    job = place / "job"
    job.mkdir()
    (job / "run.sh").write_text("#!/bin/sh\n" + script + "\n")
    (job / "run.sh").chmod(0o755)
    errand = Errand(hostname="environment", filesystem="ext2")
    task = assignment(place / "run", job, errand=errand, timeout_s=timeout_s, idle_timeout_s=idle_s)
    task = msgspec.structs.replace(task, log_head_bytes=2**22)
    with start() as machine:
        return machine.run(task)


@pytest.fixture(scope="module")
def found(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command said, and then its exit status."""
    place = tmp_path_factory.mktemp("environment")
    parts = [f"echo '<{name}>'\n(\n{command}\n) 2>&1\necho; echo status $?" for name, command in EXPECTED.items()]
    parts = [part.replace("echo; echo status $?", "status=$?; echo; echo status $status") for part in parts]
    run_job(start, place, "\n".join(["export JOB=$$", *parts, "echo '<gitconfig>'", "cat /etc/gitconfig"]))
    said = (place / "run/output.log").read_text()
    return dict(re.findall(r"^<(.*)>\n((?:(?!<).*\n?)*)", said, re.MULTILINE))


@pytest.mark.parametrize("name", EXPECTED)
def test_machine_is_as_a_build_expects_it(found: dict[str, str], name: str) -> None:
    assert found[name].rstrip().endswith("status 0"), found[name]


@pytest.mark.root("only root can give a repository to somebody else")
def test_git_obeys_the_repository_of_a_job_whoever_it_belongs_to(found: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "gitconfig").write_text(found["gitconfig"])
    (tmp_path / "job").mkdir()
    run("git", "init", "-q", tmp_path / "job")
    run("chown", "-R", "1234:1234", tmp_path / "job")
    ask = ("git", "-C", tmp_path / "job", "status", "--short")
    with pytest.raises(AssertionError, match="dubious ownership"):
        run("env", f"HOME={tmp_path}", "GIT_CONFIG_SYSTEM=/dev/null", *ask)
    run("env", f"HOME={tmp_path}", f"GIT_CONFIG_SYSTEM={tmp_path / 'gitconfig'}", *ask)


@pytest.mark.parametrize("name", ENDS)
def test_reason_says_how_the_job_ended(start: Start, tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    if "[usual" in request.node.name and name not in USUAL and not request.config.getoption("--all"):
        pytest.skip("seen with a user-mode machine, which takes a third of the time: only with --all")
    script, status, exit_code, reason = ENDS[name]
    limits = {"too long": {"timeout_s": 3.0}, "silent": {"idle_s": 2.0}}.get(name, {})
    ending = run_job(start, tmp_path, script, **limits)
    assert outcome.judge(ending) == Outcome(status, reason, exit_code), ending


# How often init has read anything (proc_pid_io(5)) while nobody could write to its pipe. The last words come by it.
UNHEARD = r"""
calls() { sed -n 's/syscr: //p' /proc/1/io; }
pipe=$(find /proc/1/fd -lname 'pipe:*')
exec >/dev/null 2>&1
before=$(calls); sleep 1; after=$(calls)
exec >$pipe
echo calls $((after - before))
"""


def test_init_leaves_the_processor_to_a_job_whose_output_goes_elsewhere(start: Start, tmp_path: Path) -> None:
    assert run_job(start, tmp_path, UNHEARD).claims.exit_code == 0
    words = (tmp_path / "run/output.log").read_text().split()
    assert words[0] == "calls"
    assert 0 < int(words[1]) < 100


# Processes that nobody waits for but init, each of which interrupts it by its end, beside output in small pieces.
INTERRUPTED = """
(while :; do (true &); done) &
number=0
while [ $number -lt 20000 ]; do number=$((number + 1)); echo $number; done
"""


def test_no_output_is_lost_however_often_init_is_interrupted(start: Start, tmp_path: Path) -> None:
    assert run_job(start, tmp_path, INTERRUPTED).claims.exit_code == 0
    lines = (tmp_path / "run/output.log").read_text().splitlines()
    assert lines == [str(number) for number in range(1, 20001)]
