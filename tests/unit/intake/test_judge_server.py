"""judge_server, confinement: what the processes that read uploads can still do, seen from outside and from inside."""

import json
import os
import select
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.config import GateSection
from construir_ftp.intake import judge_server, verdict
from construir_ftp.jail import seccomp
from tests.support import images
from tests.support.ftpclient import LONG_S
from tests.support.images import CODECS

FILTER = seccomp.reader()
LIMITS = GateSection()

filtered = pytest.mark.skipif(FILTER is None, reason="no system call filter is known for this kind of machine")


@contextmanager
def server_at_work(limits: GateSection, *wrapper: str) -> Iterator[tuple["subprocess.Popen[bytes]", socket.socket]]:
    """A judge_server outside of a jail, under a tracer if `wrapper` is one, and the socket it listens to."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [*wrapper, sys.executable, "-I", "-m", "construir_ftp.intake.judge_server", verdict.encode_limits(limits)]
    with (
        ours,
        theirs,
        subprocess.Popen(
            [*argv, (FILTER or b"").hex()], stdin=theirs.fileno(), stderr=subprocess.PIPE, env=process.environment()
        ) as child,
    ):
        theirs.close()
        try:
            yield child, ours
            ours.close()
            child.wait(LONG_S)
        finally:
            child.kill()


def hand_over(control: socket.socket, upload: Path) -> tuple[socket.socket, int]:
    """Have a judge_server judge a file: the socket to its judge, who has greeted, and the judge's pidfd."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(LONG_S)
    with upload.open("rb") as file, theirs:
        socket.send_fds(control, [b"?"], [file.fileno(), theirs.fileno()])
    said, descriptors, _, _ = socket.recv_fds(ours, 100, 1)
    assert said == verdict.GREETING
    return ours, descriptors[0]


def ask(upload: Path, limits: GateSection, *wrapper: str) -> verdict.Answer:
    """The answer of a judge outside of a jail on a whole file."""
    with server_at_work(limits, *wrapper) as (child, control):
        judge, pidfd = hand_over(control, upload)
        os.close(pidfd)
        with judge:
            judge.send(verdict.message(upload.stat().st_size, 2**40, is_whole=True))
            answer = verdict.decode_answer(judge.recv(100_000))
        control.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""
    return answer


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.long
@filtered
@pytest.mark.parametrize("codec", CODECS)
def test_a_judge_reads_only_when_it_is_confined_and_then_does_nothing_else(tmp_path: Path, codec: str) -> None:
    upload = written(tmp_path / "upload", images.pack(codec, images.image()))
    log = tmp_path / "calls"
    assert isinstance(ask(upload, LIMITS, "strace", "-f", "-o", str(log)), verdict.Verdict)
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    first, last = lines[0][0], max((pid for pid, _ in lines), key=int)
    assert first != last, "the judge is a process of its own"
    judge_servers = [call for pid, call in lines if pid == first]
    handed_over = next(number for number, call in enumerate(judge_servers) if call.startswith("recvmsg(0"))
    assert not [call for call in judge_servers[handed_over:] if "read" in call.partition("(")[0]], (
        "the judge_server reads nothing"
    )
    calls = [call for pid, call in lines if pid == last]
    confined = next(number for number, call in enumerate(calls) if call.startswith("prctl(PR_SET_SECCOMP"))
    assert not [call for call in calls[:confined] if call.startswith(("read(0,", "pread"))]
    afterwards = {call.partition("(")[0] for call in calls[confined + 1 :] if call[0].isalpha()}
    assert "read" in afterwards
    assert not [call for call in calls[confined + 1 :] if "EPERM" in call], "nothing it wants is denied"
    allowed = "read lseek mmap munmap mremap brk madvise recvfrom sendto rt_sigaction exit_group"
    assert afterwards <= {*allowed.split()}


PROBE = """
    import ctypes, errno, json, mmap, os, resource, signal, socket, sys
    from construir_ftp.intake import judge_server
    from construir_ftp.jail import privileges

    bystander = int(sys.argv[1])
    setup = judge_server.Setup(judge_server.GateSection(), bytes.fromhex(sys.argv[2]))
    libc = ctypes.CDLL(None, use_errno=True)
    privileges.hide_memory()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    file = os.open("/dev/zero", os.O_RDONLY)
    out = os.dup(1)
    report = os.fdopen(out, "w")
    keep = report.fileno()
    judge_server._confine(setup)
    tries = {
        "open": lambda: os.open("/dev/null", os.O_RDONLY),
        "socket": socket.socket,
        "fork": os.fork,
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(bystander, signal.SIGTERM),
        "kill parent": lambda: os.kill(os.getppid(), 0),
        "limits of another": lambda: resource.prlimit(bystander, resource.RLIMIT_NOFILE),
        "priority of another": lambda: os.setpriority(os.PRIO_PROCESS, bystander, 19),
        "pidfd": lambda: os.pidfd_open(bystander),
        "stat": lambda: os.stat("/"),
        "unlink": lambda: os.unlink("/nonexistent"),
        "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "dup": lambda: os.dup(0),
        "pipe": os.pipe,
        "pdeathsig": lambda: privileges.die_with_parent(os.getppid(), signal.SIGKILL),
        "ptrace": lambda: check(libc.ptrace(16, bystander, 0, 0)),
        "another thread's memory": lambda: check(libc.process_vm_readv(bystander, 0, 0, 0, 0, 0)),
    }

    def check(result):
        if result < 0:
            raise OSError(ctypes.get_errno(), "")

    done = {}
    for name, attempt in tries.items():
        try:
            attempt()
            done[name] = "allowed"
        except OSError as error:
            done[name] = errno.errorcode[error.errno]
    done["memory"] = len(bytearray(1000))
    report.write(json.dumps(done))
    report.flush()
    os._exit(0)
"""


@filtered
def test_a_confined_judge_can_touch_nobody_and_open_nothing() -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        argv = [sys.executable, "-c", textwrap.dedent(PROBE), str(bystander.pid), (FILTER or b"").hex()]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        alive = bystander.poll() is None
        bystander.kill()
    assert alive
    outcome = json.loads(done.stdout)
    assert outcome.pop("memory") == 1000
    assert outcome == dict.fromkeys(outcome, "EPERM")


def test_a_disk_that_fails_under_the_judge_is_not_the_uploads_fault(tmp_path: Path) -> None:
    upload = written(tmp_path / "upload", images.image())
    tracer = ("strace", "-f", "-o", os.devnull, "-P", str(upload), "-e", "trace=read", "-e", "inject=read:error=EIO")
    answer = ask(upload, LIMITS, *tracer)
    assert isinstance(answer, verdict.Refusal)
    assert answer.reply == 452
    assert answer.reason.startswith("the server can't read it back (Input/output error)")


def test_a_file_shorter_than_it_is_said_to_be_is_not_the_uploads_fault(tmp_path: Path) -> None:
    upload = written(tmp_path / "upload", images.image())
    with server_at_work(LIMITS) as (_, control):
        judge, pidfd = hand_over(control, upload)
        os.close(pidfd)
        with judge:
            judge.send(verdict.message(upload.stat().st_size + 5000, 2**40, is_whole=False))
            answer = verdict.decode_answer(judge.recv(100_000))
    assert isinstance(answer, verdict.Refusal)
    assert answer.reply in (452, 550)


def test_the_judge_server_imports_nothing_it_does_not_need() -> None:
    code = "import sys, construir_ftp.intake.judge_server; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"click", "rich", "pyftpdlib", "sh", "asyncio", "schedule", "argon2", "construir_ftp.jobs.spool"}
    assert heavy.isdisjoint(done.stdout.split())
    assert judge_server.__name__ in done.stdout.split()


def test_judges_end_with_their_server_and_when_nobody_waits_for_them(tmp_path: Path) -> None:
    upload = images.sparse(tmp_path / "upload", images.image(), 2**30)
    with server_at_work(LIMITS) as (child, control):
        left, abandoned = hand_over(control, upload), hand_over(control, upload)
        left[0].send(verdict.message(2**20, 2**40, is_whole=False))
        abandoned[0].close()
        assert select.select([abandoned[1]], [], [], LONG_S)[0], "abandoned"
        child.kill()
        assert select.select([left[1]], [], [], LONG_S)[0], "left behind"
        left[0].close()
        for _, pidfd in (left, abandoned):
            os.close(pidfd)


def test_without_libmagic_there_is_no_judge_server_and_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['magic'] = None; from construir_ftp.intake import judge_server; judge_server.main()"
    argv = [sys.executable, "-c", code, verdict.encode_limits(LIMITS), ""]
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG_S, check=False)
    missing = "libmagic is missing, so that no upload can be judged; run: apt install libmagic1\n"
    assert (ended.returncode, ended.stderr) == (1, missing)
