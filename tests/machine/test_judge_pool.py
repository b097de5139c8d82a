"""judges, judge: judges that are ready, follow a file as it grows, and can fail without harm to anyone else."""

import logging
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.config import GateSection
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake import judge_pool as judge_pools
from construir_ftp.intake import live_check, verdict
from construir_ftp.intake.judge_handle import JudgeHandle
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.live_check import LiveCheck
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jail import jail
from construir_ftp.units import Duration, Size
from tests.support import images
from tests.support.ftpclient import LONG_S, wait_until
from tests.support.images import CODECS, KIB, MIB
from tests.support.places import PROJECT
from tests.support.prison import bare, descendants, judge_pids, judge_server_pids, nothing_left, wait_for_end

BROKEN = "checking it failed; if the image is sound, tell the operator"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def judges() -> Iterator[JudgePool]:
    with JudgePool(GateSection()) as judges:
        yield judges


def always() -> bool:
    return True


def followed(judges: JudgePool, path: Path, whose: str = judge_pools.NOBODY) -> JudgeHandle:
    judge = judges.follow(path, whose=whose)
    assert judge is not None
    return judge


def grown(judges: JudgePool, path: Path, data: bytes, step: int) -> Verdict:
    """The verdict on a file that is written in steps, each of which is told at once."""
    with path.open("xb", buffering=0) as file, followed(judges, path) as judge:
        for start in range(0, len(data), step):
            file.write(data[start : start + step])
            judge.tell(file.tell())
            judge.heed()
        return judge.conclude(len(data), always)


def outcome(judged: Callable[[], Verdict]) -> Verdict | tuple[int, str]:
    """The verdict, or what a client is told instead."""
    try:
        return judged()
    except RefusedError as refused:
        return refused.reply, str(refused)


def the_judge() -> int:
    wait_until(judge_pids, "the judge is there")
    (judge,) = judge_pids()
    return judge


def big(path: Path) -> Path:
    """A file whose check takes seconds."""
    return images.sparse(path, images.claiming(images.image("ext2", 8 * MIB), 8 * 2**30), 8 * 2**30)


# -- a file that grows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("step", [997, 64 * KIB, MIB])
def test_verdict_on_a_file_that_grew_is_the_one_on_the_whole(
    tmp_path: Path, judges: JudgePool, codec: str, step: int
) -> None:
    content = images.noise(300_000)
    image = images.image("ext4", 8 * MIB)
    data = images.pack(codec, image[:-400_000] + content + bytes(100_000)) if step > 1000 else images.pack(codec, image)
    if codec == "raw":
        data = data[-MIB:] if step < 1000 else data
    growing, whole = tmp_path / "growing", tmp_path / "whole"
    whole.write_bytes(data)
    assert outcome(lambda: grown(judges, growing, data, step)) == outcome(lambda: live_check.check_file(whole, judges))


def test_judge_reads_while_the_file_grows_and_has_read_all_but_the_last_step_before_its_end(
    tmp_path: Path, judges: JudgePool
) -> None:
    path = tmp_path / "upload"
    data = images.image("ext4", 8 * MIB)
    with path.open("xb", buffering=0) as file, followed(judges, path) as judge:
        for start in range(0, len(data), MIB):
            assert judge.behind_bytes(start) >= 0
            file.write(data[start : start + MIB])
            judge.tell(file.tell())
            wait_until(lambda: judge.behind_bytes(file.tell()) == 0, "the judge has read what there is")
        assert judge.conclude(len(data), always).image_bytes == 8 * MIB


def test_one_contributor_has_half_of_the_places_and_another_finds_one(tmp_path: Path, judges: JudgePool) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    judges.most_followed = 4
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(followed(judges, path, "alice"))
        assert judges.follow(path, whose="alice") is None
        held.enter_context(followed(judges, path, "bob"))
        assert live_check.check_file(path, judges).filesystem == "ext2", "when it is whole, it is judged"
    with followed(judges, path, "alice"):
        pass


def test_first_judge_of_a_contributor_comes_before_the_further_ones_of_another(
    tmp_path: Path, judges: JudgePool
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with ExitStack() as held:
        lowered = []
        known: set[int] = set()
        for whose in ("alice", "alice", "alice", "alice", "alice", "bob"):
            handle = held.enter_context(followed(judges, path, whose))
            handle.tell(MIB)
            wait_until(lambda: handle.behind_bytes(MIB) == 0, "the judge reads")  # noqa: B023
            (pid,) = set(judge_pids()) - known
            known.add(pid)
            lowered.append(os.getpriority(os.PRIO_PROCESS, pid) - os.getpriority(os.PRIO_PROCESS, 0))
    usual = 19 - os.getpriority(os.PRIO_PROCESS, 0)
    assert lowered == [min(usual, step) for step in (0, 5, 10, 15, 15, 0)]


def test_judge_reads_nothing_that_it_was_not_told_of(tmp_path: Path, judges: JudgePool) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image("ext4", 8 * MIB))
    with followed(judges, path) as judge:
        judge.tell(MIB)
        wait_until(lambda: judge.behind_bytes(MIB) == 0, "the judge has read it")
        assert judge.conclude(8 * MIB, always).upload_bytes == 8 * MIB


@pytest.mark.parametrize(
    ("data", "reply", "reason"),
    [
        (images.noise(130 * KIB), 550, "not a file system image (data)"),
        (images.pack("gzip", images.tar() + images.noise(200_000)), 550, "not a file system image (POSIX tar archive"),
        (images.image("ext4", 8 * MIB), 550, "ext4 is not accepted here; make an image of ext2"),
        (images.claiming(images.image(), 2**30), 552, "the image unpacks to 1.0 GiB; at most 512.0 MiB"),
        (images.claiming(images.image(), 64 * MIB), 552, "the image has 64.0 MiB, and this upload may have"),
        (
            images.pack("gzip", images.image()) + images.noise(128 * KIB),
            550,
            "what follows the end of the gzip stream is no part of it; cut it off with: truncate -s ",
        ),
        (
            images.claiming(images.image(), 2 * MIB)[:-KIB] + images.noise(KIB),
            550,
            f"the image goes on after the {2 * MIB} bytes",
        ),
    ],
    ids=["noise", "tar", "ext4", "larger than allowed", "larger than an upload", "two streams", "longer"],
)
def test_what_cannot_be_a_job_is_refused_before_its_end(tmp_path: Path, data: bytes, reply: int, reason: str) -> None:
    limits = GateSection(filesystems=("ext2",), max_image=Size(512 * MIB))
    path = tmp_path / "upload"
    path.write_bytes(data)
    with JudgePool(limits, 32 * MIB) as judges, followed(judges, path) as judge:
        judge.tell(len(data))
        with pytest.raises(RefusedError) as refused:
            wait_until(lambda: judge.heed(), "a refusal")
    assert (refused.value.reply, str(refused.value)[: len(reason)]) == (reply, reason)


def test_ratio_that_no_upload_can_reach_is_refused_before_its_end(tmp_path: Path) -> None:
    limits = GateSection(max_ratio=2, ratio_free=Size(MIB))
    path = tmp_path / "upload"
    data = images.pack("zstd", images.claiming(images.image(), 64 * MIB) + images.noise(128 * KIB))
    path.write_bytes(data)
    with JudgePool(limits, 31 * MIB) as judges, followed(judges, path) as judge:
        judge.tell(len(data))
        with pytest.raises(RefusedError, match=r"more than 2 times the 31\.0 MiB uploaded"):
            wait_until(lambda: judge.heed(), "a refusal")


def test_small_bomb_is_refused_by_its_ratio_once_its_end_is_known(tmp_path: Path, judges: JudgePool) -> None:
    limits = GateSection(max_ratio=20, ratio_free=Size(64 * MIB))
    path = tmp_path / "upload"
    bomb = images.bomb("bzip2", images.claiming(images.image(), 256 * MIB), 256 * MIB)
    with JudgePool(limits) as judges, pytest.raises(RefusedError, match="more than 20 times the"):
        grown(judges, path, bomb, len(bomb) - 1)


def test_judge_of_an_upload_that_was_cut_ends_without_a_verdict(tmp_path: Path, judges: JudgePool) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with followed(judges, path) as handle:
        handle.tell(MIB)
        judge = the_judge()
    wait_for_end(judge)
    assert live_check.check_file(path, judges).filesystem == "ext2"


def test_nobody_waits_for_a_verdict_nobody_wants(tmp_path: Path, judges: JudgePool) -> None:
    path = big(tmp_path / "upload")
    with LiveCheck(judges, path) as check, pytest.raises(RefusedError) as refused:
        check.conclude(path.stat().st_size, lambda: False)
    assert refused.value.reply == 426
    wait_until(lambda: not judge_pids(), "the judge ends")


# -- judges that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSEGV])
def test_judge_that_crashes_refuses_its_upload_and_no_other(
    tmp_path: Path, judges: JudgePool, caplog: pytest.LogCaptureFixture, ending: signal.Signals
) -> None:
    sound, other = tmp_path / "sound", tmp_path / "other"
    sound.write_bytes(images.image())
    other.write_bytes(images.image("ext4", 8 * MIB))
    with followed(judges, other) as innocent, judges.judge(big(tmp_path / "upload")) as judge:
        innocent.tell(MIB)
        with ThreadPoolExecutor(1) as thread, caplog.at_level(logging.WARNING):
            waiting = thread.submit(judge.conclude, 8 * 2**30, always)
            wait_until(lambda: len(judge_pids()) == 2, "both judges are there")
            wait_until(lambda: judge.behind_bytes(8 * 2**30) < 8 * 2**30, "the judge reads")
            os.kill(max(judge_pids()), ending)
            with pytest.raises(RefusedError, match=BROKEN):
                waiting.result()
        judge.close()
        assert live_check.check_file(sound, judges).filesystem == "ext2", "by a new judge server"
        assert innocent.conclude(8 * MIB, always).filesystem == "ext4", "by the old one"
    assert "a judge ended without a verdict" in caplog.text
    wait_until(lambda: ("status -11" in caplog.text) == (ending == signal.SIGSEGV), "the judge_server's word")


def test_no_upload_goes_to_a_server_whose_judge_has_crashed(tmp_path: Path, judges: JudgePool) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    live_check.check_file(path, judges)
    wait_until(lambda: not judge_pids(), "the first judge ends")
    first = judges._server
    with followed(judges, path) as judge:
        os.kill(the_judge(), signal.SIGKILL)
        with pytest.raises(RefusedError, match=BROKEN):
            judge.conclude(4 * MIB, always)
    assert live_check.check_file(path, judges).codec == "raw"
    assert judges._server is not first
    assert first is not None
    first.thread.join(LONG_S)
    assert not first.thread.is_alive()


def test_judge_that_hangs_refuses_its_upload_and_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with JudgePool(GateSection(timeout=Duration(0.3))) as judges, followed(judges, path) as handle:
        judge = the_judge()
        os.kill(judge, signal.SIGSTOP)
        with pytest.raises(RefusedError, match=r"checking it was not done after 0\.3 s; make it smaller"):
            handle.conclude(4 * MIB, always)
        handle.close()
        wait_for_end(judge)


def test_judge_that_computes_too_long_says_so_itself(tmp_path: Path) -> None:
    limits = GateSection(timeout=Duration(0.5))
    with JudgePool(limits) as judges, followed(judges, big(tmp_path / "upload")) as judge:
        judge.tell(8 * 2**30 - 1)
        with pytest.raises(RefusedError, match=r"checking it was not done after 0\.5 s"):
            wait_until(lambda: judge.heed(), "a refusal")


def test_judge_server_that_is_killed_refuses_what_its_judges_had_and_the_next_upload_has_another(
    tmp_path: Path, judges: JudgePool
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with followed(judges, path) as judge:
        judge.tell(MIB)
        wait_until(lambda: judge.behind_bytes(MIB) < MIB, "the judge reads")
        its_pid = the_judge()
        os.kill(judge_server_pids()[0], signal.SIGKILL)
        wait_for_end(its_pid)  # a moment later: told of the rest before, it might come to a verdict
        with pytest.raises(RefusedError, match=BROKEN):
            judge.conclude(4 * MIB, always)
    assert live_check.check_file(path, judges).filesystem == "ext2"


def test_idle_judge_server_that_is_killed_is_replaced_at_the_next_upload(tmp_path: Path, judges: JudgePool) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    live_check.check_file(path, judges)
    server = judges._server
    assert server is not None
    os.kill(judge_server_pids()[0], signal.SIGKILL)
    server.thread.join(LONG_S)
    assert live_check.check_file(path, judges).filesystem == "ext2"


def test_judge_server_is_replaced_after_so_many_uploads(
    tmp_path: Path, judges: JudgePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges.most_uploads = 3
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    judge_servers = set()
    for _ in range(7):
        judge_servers.add(judges._server)
        assert live_check.check_file(path, judges).filesystem == "ext2"
    assert len(judge_servers - {None}) == 2
    wait_until(
        lambda: (
            len(judges._servers) and not [old for old in judges._servers - {judges._server} if old.thread.is_alive()]
        ),
        "old judge servers go",
    )


def test_uploads_beyond_what_memory_allows_are_not_followed_but_judged(tmp_path: Path) -> None:
    limits = GateSection(max_memory=Size(2**50))
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with JudgePool(limits) as judges:
        handles = [followed(judges, path) for _ in range(judge_pools.most_followed(limits))]
        assert judges.follow(path) is None
        assert live_check.check_file(path, judges).filesystem == "ext2"
        handles.pop().close()
        handles.append(followed(judges, path))
        for judge in handles:
            judge.close()


def test_no_jail_to_be_had_is_our_fault_and_not_the_uploads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    kept = jail.host()
    jail.configure(required=True)
    jail._host._jail = bare()
    with JudgePool(GateSection()) as judges, pytest.raises(ConstruirError, match="can't be had") as error:
        live_check.check_file(path, judges)
    assert not isinstance(error.value, RefusedError)
    jail.configure()
    jail._host._jail = kept
    with JudgePool(GateSection()) as judges:
        assert live_check.check_file(path, judges).filesystem == "ext2"


def test_many_uploads_at_once_each_have_their_own_verdict(tmp_path: Path, judges: JudgePool) -> None:
    kinds = [*CODECS, "cut", "text"]
    data = {codec: images.pack(codec, images.image()) for codec in CODECS}
    data |= {"cut": data["xz"][:-1], "text": images.HELLO}

    def judged(number: int) -> str:
        kind = kinds[number % len(kinds)]
        try:
            return grown(judges, tmp_path / f"upload{number}", data[kind], 100 * KIB).codec
        except RefusedError as refused:
            return "cut" if "cut short" in str(refused) else "text"

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(judged, range(96))) == [kinds[number % len(kinds)] for number in range(96)]


# -- the end -----------------------------------------------------------------------------------------------------


def test_closing_the_pool_ends_its_judges(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    judges = JudgePool(GateSection())
    with followed(judges, path) as handle:
        judge = the_judge()
        judges.close()
        assert judge_pids() == []
        wait_for_end(judge)
        with pytest.raises((RefusedError, ConstruirError)):
            handle.conclude(4 * MIB, always)
    judges.close()


PARENT = """
    import sys, time
    from pathlib import Path
    from construir_ftp.intake.judge_pool import JudgePool
    from construir_ftp.config import GateSection
    judges = JudgePool(GateSection())
    judge = judges.follow(Path(sys.argv[1]))
    judge.tell(1 << 20)
    while judge.behind_bytes(1 << 20):
        time.sleep(0.01)
    print("reading", flush=True)
    if sys.argv[2] == "stay":
        time.sleep(60)
    raise SystemExit(sys.argv[2] == "fail")
"""


@pytest.mark.parametrize("ending", ["kill", "fail", "leave"])
def test_no_judge_outlives_its_gate_however_that_ends(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    argv = [sys.executable, "-c", textwrap.dedent(PARENT), str(path), "stay" if ending == "kill" else ending]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=process.environment(PYTHONPATH=".")) as gate_process:
        assert gate_process.stdout is not None
        assert gate_process.stdout.readline() == b"reading\n"
        left = descendants(gate_process.pid)[1:]
        if ending == "kill":
            gate_process.kill()
        gate_process.wait(LONG_S)
    for pid in left:
        wait_for_end(pid)


class Seat:
    """The place of a judge without a judges."""

    in_disorder: bool | None = None

    def failure(self) -> Exception:
        return ConstruirError("no greeting")

    def leave(self, *, in_disorder: bool) -> None:
        self.in_disorder = in_disorder


def heard(greeting: bytes, *messages: bytes) -> tuple[str, bool | None]:
    """What becomes of an upload whose judge says this and ends: the error, and whether it was in disorder."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    seat = Seat()
    with subprocess.Popen(["sleep", "60"]) as judge, theirs:
        with JudgeHandle(seat, os.open(os.devnull, os.O_RDONLY), ours, GateSection(), 2**40) as handle:
            pidfd = os.pidfd_open(judge.pid)
            socket.send_fds(theirs, [greeting], [pidfd])
            os.close(pidfd)
            for message in messages:
                # Descriptors that nobody asked for are not taken: the fixture counts them.
                socket.send_fds(theirs, [message], [theirs.fileno()] * 3)
            theirs.close()
            with pytest.raises(ConstruirError) as error:
                handle.conclude(1, always)
        judge.kill()
    return str(error.value), seat.in_disorder


def test_what_is_no_answer_is_no_verdict() -> None:
    assert heard(b"hello") == ("no greeting", False)
    for said in (
        [b"\xff\0garbage", b"{}", b'{"type":"job"}', b"[" * 60_000],
        [b'{"type":"refused","reason":"\\u001b[2J","reply":550}'],
        [b'{"type":"refused","reason":"x","reply":226}'],
        [b"x" * 8192] * 9,
        [b""],
        [],
    ):
        assert heard(verdict.GREETING, *said) == (BROKEN, True)


def test_a_libmagic_that_cant_be_loaded_is_told_with_what_to_install(tmp_path: Path) -> None:
    upload = tmp_path / "job.img"
    upload.write_bytes(images.image("ext2", MIB))
    images.run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    (libraries,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    (libraries / "all.pth").write_text(f"{sysconfig.get_path('purelib')}\n{PROJECT}\n")
    (libraries / "magic.py").write_text("raise ImportError('failed to find libmagic.  Check your installation')\n")
    python = str(tmp_path / "venv/bin/python")
    argv = [python, "-m", "construir_ftp", "shell", str(upload), "--spool", str(tmp_path / "spool")]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=LONG_S, check=False)
    assert said.returncode == 1
    remedy = "libmagic is missing, so that no upload can be judged; run: apt install libmagic1"
    assert said.stderr.splitlines()[-1] == f"construir: {remedy}"
