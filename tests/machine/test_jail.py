"""What a jail keeps in and out, and how it ends. All of it holds for root and for an ordinary user."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from construir_ftp import process
from construir_ftp.errors import ConstruirError
from construir_ftp.jail import cell, jail, orphans
from construir_ftp.jail.cell import Cell, Limits
from construir_ftp.jail.jail import Jail
from construir_ftp.jail.prisoner import Prisoner
from tests.support import ordinaryuser
from tests.support.places import PROJECT
from tests.support.prison import (
    LOOKING,
    MIB,
    bare,
    descendants,
    nothing_left,
    python,
    run,
    running,
    shell,
    wait_for_end,
)

# What is tested again as an ordinary user.
TESTS = [
    PROJECT / "tests" / name
    for name in ("machine/test_jail.py", "machine/test_cell.py", "machine/test_user_mode_jail.py", "unit/jail")
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


# -- what is inside ------------------------------------------------------------------------------------------


def test_other_jobs_files_do_not_exist_inside(tmp_path: Path) -> None:
    for job in ("mine", "other"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "disk.img").write_text(job)
    kind = Cell(readable=(tmp_path / "mine/disk.img",))
    script = f"cd {tmp_path}; cat mine/disk.img; ls . mine; cat other/disk.img"
    status, said = run(jail.host(), kind, ["sh", "-c", script])
    assert status == 1
    assert said.split("cat: ") == ["mine.:\nmine\n\nmine:\ndisk.img\n", "other/disk.img: No such file or directory\n"]


REFUSED = ["sh:", "1:", "kill:", "Operation", "not", "permitted"]
TOP = ". .. bin dev etc lib lib32 lib64 libx32 proc sbin usr var"


def test_nothing_of_the_host_is_there_but_its_programs() -> None:
    assert set(shell("ls -a /").split()) <= set(TOP.split())
    assert set(shell("ls /etc").split()) <= {"ld.so.cache", "alternatives"}
    assert shell("ls /dev").split() == ["null", "urandom"]
    assert shell("hostname") == "jail\n"


def test_only_its_own_processes_are_in_proc() -> None:
    # The first waits for the program, where it is another: root's, and to be killed from outside only.
    assert shell("echo /proc/[0-9]*; kill -9 1; true").split() in (["/proc/1"], ["/proc/1", "/proc/2", *REFUSED])


def test_without_proc_there_is_none() -> None:
    assert "proc" not in shell("ls /", Cell()).split()


def test_there_is_no_network_but_a_loopback_of_its_own() -> None:
    assert re.findall(r"^ *(\w+):", shell("cat /proc/net/dev"), re.MULTILINE) == ["lo"]
    assert shell("cat /proc/net/route").splitlines()[1:] == []
    # The host's loopback is another one: nobody listens on this one, and asking takes a socket.
    with socket.create_server(("127.0.0.1", 0)) as server:
        status, said = run(
            Jail(msgspec.structs.replace(jail.host().means, filter=None)),
            Cell(readable=cell.python()),
            [sys.executable, "-I", "-c", f"import socket; socket.create_connection({server.getsockname()!r})"],
        )
    assert status == 1
    assert "ConnectionRefusedError" in said


def test_no_capability_no_new_privilege_and_a_filter() -> None:
    status = dict(line.split(":\t") for line in shell("cat /proc/self/status").splitlines() if ":\t" in line)
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_environment_of_the_parent_is_not_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    seen = dict(
        line.split("=", 1) for line in shell("env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'").splitlines()
    )
    assert seen.keys() == {"PATH", "LC_ALL", "PWD", orphans.VARIABLE}


def test_descriptors_of_the_parent_are_not_to_be_found(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        seen = shell("for fd in /proc/self/fd/*; do readlink $fd; done; true")
    kinds = [re.sub(r":?\[.*", "", line) for line in seen.splitlines()]
    # The user namespace is its own; setns(2) into it is refused, and would not lead anywhere.
    assert set(kinds) <= {"/dev/null", "pipe", "user", "/proc/1/fd"}


def test_descriptors_that_are_given_arrive() -> None:
    ours, theirs = socket.socketpair()
    argv = [sys.executable, "-I", "-c", f"import os; os.write({theirs.fileno()}, b'hello')"]
    with ours, theirs, jail.host().hold(Cell(readable=cell.python()), argv, pass_fds=[theirs.fileno()]):
        ours.settimeout(30)
        assert ours.recv(100) == b"hello"


# -- what can't be done --------------------------------------------------------------------------------------


def test_nothing_can_be_written_but_what_was_given(tmp_path: Path) -> None:
    shown, given = tmp_path / "shown", tmp_path / "given"
    for path in (shown, given):
        path.write_text("as it was")
    kind = Cell(readable=(shown,), writable=(given,), scratch_bytes=MIB)
    places = ["/x", "/usr/x", "/etc/x", "/dev/x", "/var/x", f"{tmp_path}/x", shown, "/usr/bin/env"]
    tries = "; ".join(f"echo hurt 2>/dev/null >{place} && echo {place}" for place in places)
    assert (
        shell(f"echo new >{given}; echo much >/var/tmp/x; ({tries}); rm -f {shown} {given}; true", kind).count("\n")
        == 2
    )
    assert (shown.read_text(), given.read_text()) == ("as it was", "new\n")


def test_scratch_space_ends() -> None:
    script = (
        "dd if=/dev/urandom of=/var/tmp/big bs=64k count=100 2>&1; wc -c </var/tmp/big; dd if=/var/tmp/big of=/dev/null"
    )
    said = shell(f"{script} 2>/dev/null", LOOKING)
    assert "No space left on device" in said
    assert int(said.split()[-1]) <= MIB


@pytest.mark.parametrize(
    ("attempt", "library_call"),
    [
        ("a new user namespace", "unshare(0x10000000)"),
        ("a new network namespace", "unshare(0x40000000)"),
        ("another's namespace", "setns(3, 0)"),
        ("a mount", "mount(b'none', b'/var', b'tmpfs', 0, 0)"),
        ("a socket", "socket(2, 1, 0)"),
        ("tracing", "ptrace(0, 0, 0, 0)"),
        ("surviving its owner", "prctl(1, 0)"),
        ("a chroot", "chroot(b'/usr')"),
        ("another's uid", "setuid(0)"),
    ],
)
def test_escape_is_refused(attempt: str, library_call: str) -> None:
    code = f"import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.{library_call}, ctypes.get_errno())"
    # EPERM; EINVAL for a uid that is not there at all.
    assert python(code) in ("-1 1\n", "-1 22\n"), attempt


def test_a_new_process_can_t_have_namespaces_of_its_own() -> None:
    if not (call := {"x86_64": 56, "aarch64": 220}.get(os.uname().machine)):
        pytest.skip(f"no filter for {os.uname().machine}")
    code = f"""
import ctypes
c = ctypes.CDLL(None, use_errno=True)
for flags in (0x10000000, 0x40000000, 0x20000000, 0x80):
    print(c.syscall({call}, flags | 17, 0, 0, 0, 0), ctypes.get_errno())
print(c.syscall(435, 0, 0), ctypes.get_errno())
"""
    assert python(code).splitlines() == ["-1 1"] * 4 + ["-1 38"]


# -- limits ----------------------------------------------------------------------------------------------------


def test_a_file_can_t_grow_beyond_its_limit(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"")
    kind = Cell(writable=(disk,), limits=Limits(file_bytes=64 * 1024))
    status, _ = run(jail.host(), kind, ["dd", "if=/dev/urandom", f"of={disk}", "bs=1k", "count=100"])
    assert status != 0
    assert disk.stat().st_size == 64 * 1024


def test_memory_ends_at_its_limit() -> None:
    code = """
try:
    bytearray(512 * 2**20)
except MemoryError:
    print("refused")
"""
    assert python(code, Limits(address_bytes=256 * MIB)) == "refused\n"


def test_cpu_time_ends_at_its_limit() -> None:
    status, _ = run(jail.host(), Cell(limits=Limits(cpu_s=1)), ["sh", "-c", "while :; do :; done"])
    assert status == -signal.SIGKILL


def test_a_fork_bomb_ends_at_its_limit() -> None:
    code = """
import os, signal
born = 0
try:
    while born < 100:
        if not os.fork():
            signal.pause()
        born += 1
except BlockingIOError:
    print(born)
"""
    assert int(python(code, Limits(processes=10))) <= 10


def test_descriptors_end_at_their_limit() -> None:
    assert shell("ulimit -n; ulimit -c", Cell(limits=Limits(open_files=20))).split() == ["20", "0"]


# -- life and death ------------------------------------------------------------------------------------------


def test_status_is_the_programs_own() -> None:
    assert run(jail.host(), Cell(), ["sh", "-c", "exit 7"])[0] == 7
    assert run(jail.host(), Cell(), ["true"])[0] == 0
    status, said = run(jail.host(), Cell(), ["no-such-program"])
    assert (status, "no-such-program" in said) == (127, True)


def test_a_crash_is_told_by_its_signal() -> None:
    kind = Cell(readable=cell.python())
    code = "import ctypes; ctypes.string_at(0)"
    assert run(jail.host(), kind, [sys.executable, "-I", "-c", code])[0] == -signal.SIGSEGV


def test_everything_inside_is_dead_when_the_outside_has_ended() -> None:
    # Two that ignore every polite signal, in a session of their own.
    script = "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM HUP INT; echo up; sleep 1000' & wait"
    with jail.host().hold(LOOKING, ["sh", "-c", script], stdout=subprocess.PIPE) as prisoner:
        inside = running(prisoner)
        family = descendants(inside)
        assert len(family) >= 2
        prisoner.kill()
        prisoner.process.wait(30)
        assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []
        assert prisoner.status(prisoner.process.returncode) == -signal.SIGKILL


def test_a_polite_signal_to_all_of_a_service_is_not_for_what_is_in_a_jail() -> None:
    with jail.host().hold(
        LOOKING, ["sh", "-c", "echo up; read it; exit 7"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as prisoner:
        inside = running(prisoner)
        for pid in descendants(prisoner.process.pid):
            os.kill(pid, signal.SIGTERM)
        prisoner.process.communicate(b"on\n", timeout=30)
        assert prisoner.status(prisoner.process.returncode) == 7
    wait_for_end(inside)


def test_kill_before_the_program_has_begun_leaves_nothing() -> None:
    for _ in range(20):
        with jail.host().hold(Cell(), ["sleep", "1000"]) as prisoner:
            prisoner.kill()
            prisoner.process.wait(30)


def test_leaving_the_context_ends_it() -> None:
    with jail.host().hold(Cell(), ["sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE) as prisoner:
        inside = running(prisoner)
    assert not Path(f"/proc/{inside}").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_what_the_program_used_is_counted(killed: bool) -> None:
    code = f"""
x = b"x" * (64 * 2**20)
for _ in range(10**7):
    pass
print(flush=True)
import time; time.sleep(1000 * {killed:d})
"""
    kind = Cell(readable=cell.python())
    with jail.host().hold(kind, [sys.executable, "-I", "-c", code], stdout=subprocess.PIPE) as prisoner:
        assert prisoner.process.stdout is not None
        prisoner.process.stdout.readline()
        if killed:
            prisoner.kill()
        _, status, usage = os.wait4(prisoner.process.pid, 0)
        prisoner.process.returncode = os.waitstatus_to_exitcode(status)
        assert prisoner.status(prisoner.process.returncode) == (-signal.SIGKILL if killed else 0)
        assert usage.ru_maxrss * 1024 > 64 * MIB
        assert usage.ru_utime > 0.02


_OWNER = """
import subprocess, sys
from construir_ftp.jail import jail
from construir_ftp.jail.cell import Cell
with jail.host().hold(Cell(), ["sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE) as prisoner:
    prisoner.process.stdout.readline()
    print(prisoner.inside(), flush=True)
    sys.stdin.read()
"""


def owner(script: str = _OWNER) -> "subprocess.Popen[bytes]":
    """Another process that has a jail; it has said the number of what is inside."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=process.environment(PYTHONPATH=str(PROJECT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_kill_9_of_the_owner_kills_what_is_inside() -> None:
    with owner() as other:
        assert other.stdout is not None
        inside = int(other.stdout.readline())
        other.kill()
        wait_for_end(inside)
    jail.sweep()  # its cgroup


def test_the_end_of_the_thread_that_started_it_kills_what_is_inside() -> None:
    stack = ExitStack()
    held: list[Prisoner] = []

    def start() -> None:
        held.append(
            stack.enter_context(jail.host().hold(Cell(), ["sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE))
        )
        running(held[0])

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    held[0].process.wait(30)
    stack.close()


# -- uids ------------------------------------------------------------------------------------------------------


@pytest.mark.root("only root has uids to give")
def test_every_jail_of_root_has_a_uid_of_its_own() -> None:
    with ExitStack() as stack:
        held = [
            stack.enter_context(jail.host().hold(Cell(), ["sh", "-c", "echo; read -r _"], stdin=pipe, stdout=pipe))
            for pipe in [subprocess.PIPE] * 3
        ]
        seen = {Path(f"/proc/{running(prisoner)}").stat().st_uid for prisoner in held}
        assert seen == {prisoner.uid for prisoner in held}
    assert len(seen) == 3
    assert seen <= set(jail.UIDS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root has uids to give")
def test_a_jail_of_an_ordinary_user_has_that_user() -> None:
    assert int(shell("id -u")) == os.geteuid()


@pytest.mark.root("only root has uids to give")
def test_a_file_behind_closed_doors_can_be_given(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    disk = closed / "disk.img"
    disk.write_text("old")
    disk.chmod(0o600)
    shell(f"echo new >{disk}", Cell(writable=(disk,)))
    assert disk.read_text() == "new\n"
    assert disk.stat().st_uid in jail.UIDS


# -- where walls are not to be had -----------------------------------------------------------------------------


def test_without_walls_a_kill_still_ends_it() -> None:
    with bare().hold(Cell(), ["sh", "-c", "echo up; sleep 1000 & wait"], stdout=subprocess.PIPE) as prisoner:
        running(prisoner)
        prisoner.kill()
        assert prisoner.status(prisoner.process.wait(30)) == -signal.SIGKILL


@pytest.mark.root("only root has uids to give")
def test_without_walls_files_behind_closed_doors_are_an_error_that_says_so(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConstruirError, match=r"closed to others.*install bubblewrap"):
        run(bare(), Cell(readable=(closed / "x",)), ["true"])


_IN_A_CONTAINER = """
from construir_ftp.jail import jail
from construir_ftp.jail import check as jailcheck
prison = jail.find()
print(prison.means.walls, [f"{part.name}: {part.why}" for part in jailcheck.missing(jailcheck.in_force(prison))])
"""


def test_root_of_a_container_that_has_no_other_uids_can_jail_all_but_the_uid() -> None:
    argv = ["unshare", "--map-root-user", sys.executable, "-c", _IN_A_CONTAINER]
    env = process.environment(PYTHONPATH=str(PROJECT))
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.stderr.startswith("unshare: "):
        pytest.skip(f"can't be tried here: {done.stderr.strip()}")
    assert done.stderr == ""
    assert done.stdout.startswith("user [\"uid of its own: the uids from 1900000000 on don't exist in this container")
    assert done.stdout.count("namespace") == done.stdout.count("capabilities") == 0


_FIND = """
from construir_ftp.jail import jail
from construir_ftp.errors import ConstruirError
means = jail.find().means
print(means.walls, means.reason, sep="|")
jail.configure(required=True)
try:
    jail.host()
except ConstruirError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("lack", "said"),
    [
        ("echo 0 >/proc/sys/user/max_user_namespaces", "amespace"),
        ("mount --bind /dev/null /usr/bin/bwrap", "bwrap"),
    ],
)
def test_a_host_without_walls_is_found_out_and_refused_if_they_are_required(lack: str, said: str) -> None:
    # In a user namespace of its own, where a limit can be lowered and a program hidden.
    script = f'{lack} || exit 77; exec "$@"'
    found = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", _FIND],
        env=process.environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 77 or found.stderr.startswith("unshare: "):
        pytest.skip(f"can't be tried here: {found.stderr.strip()}")
    means, refusal = found.stdout.splitlines()
    assert means.startswith("none|")
    assert said in means
    assert "required" in refusal
    assert "apt install bubblewrap" in refusal


# -- and all of it as an ordinary user -------------------------------------------------------------------------


def _needed() -> list[Path]:
    return [Path(sys.prefix), Path(sys.base_prefix)]


@pytest.mark.root("only root has uids to give")
def test_all_of_this_holds_for_an_ordinary_user(images: Path, tmp_path: Path) -> None:
    (tmp_path / "construir").symlink_to(images.parent)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-q"]
    done = ordinaryuser.run(
        [*argv, "-c", str(PROJECT / "setup.cfg"), f"--basetemp={tmp_path}/pytest", *map(str, TESTS)],
        [*_needed(), images],
        tmp_path,
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@pytest.mark.root("only root has uids to give")
def test_a_service_with_a_capability_can_jail(tmp_path: Path) -> None:
    """As the FTP server under systemd, which may open port 21; bubblewrap would not have it."""
    script = "from construir_ftp.jail import check, jail; check.demand(jail.host()); print(jail.host().means.walls)"
    capability = ("--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service")
    done = ordinaryuser.run([sys.executable, "-c", script], _needed(), tmp_path, *capability)
    assert (done.stdout, done.stderr) == ("user\n", "")
