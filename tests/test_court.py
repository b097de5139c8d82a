"""court, hearing: judges that are ready, follow a file as it grows, and can fail without harm to anyone else."""

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.config import GateSection
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake import admission, verdict
from construir_ftp.intake import judge_pool as courts
from construir_ftp.intake.judge_handle import Hearing
from construir_ftp.intake.judge_pool import Court
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jail import jail
from construir_ftp.units import Duration, Size
from tests import images
from tests.ftpclient import LONG_S, wait_until
from tests.images import CODECS, KIB, MIB
from tests.prison import clerks, descendants, judges, nothing_left, wait_for_end

BROKEN = "checking it failed; if the image is sound, tell the operator"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def court() -> Iterator[Court]:
    with Court(GateSection()) as court:
        yield court


def always() -> bool:
    return True


def followed(court: Court, path: Path) -> Hearing:
    hearing = court.follow(path)
    assert hearing is not None
    return hearing


def grown(court: Court, path: Path, data: bytes, step: int) -> Verdict:
    """The verdict on a file that is written in steps, each of which is told at once."""
    with path.open("xb", buffering=0) as file, followed(court, path) as hearing:
        for start in range(0, len(data), step):
            file.write(data[start : start + step])
            hearing.tell(file.tell())
            hearing.heed()
        return hearing.conclude(len(data), always)


def outcome(judged: Callable[[], Verdict]) -> Verdict | tuple[int, str]:
    """The verdict, or what a client is told instead."""
    try:
        return judged()
    except RefusedError as refused:
        return refused.reply, str(refused)


def the_judge() -> int:
    wait_until(judges, "the judge is there")
    (judge,) = judges()
    return judge


def big(path: Path) -> Path:
    """A file whose check takes seconds."""
    return images.sparse(path, images.claiming(images.image("ext2", 8 * MIB), 8 * 2**30), 8 * 2**30)


# -- a file that grows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("step", [997, 64 * KIB, MIB])
def test_verdict_on_a_file_that_grew_is_the_one_on_the_whole(
    tmp_path: Path, court: Court, codec: str, step: int
) -> None:
    content = images.noise(300_000)
    image = images.image("ext4", 8 * MIB)
    data = images.pack(codec, image[:-400_000] + content + bytes(100_000)) if step > 1000 else images.pack(codec, image)
    if codec == "raw":
        data = data[-MIB:] if step < 1000 else data
    growing, whole = tmp_path / "growing", tmp_path / "whole"
    whole.write_bytes(data)
    assert outcome(lambda: grown(court, growing, data, step)) == outcome(lambda: admission.check(whole, court))


def test_judge_reads_while_the_file_grows_and_has_read_all_but_the_last_step_before_its_end(
    tmp_path: Path, court: Court
) -> None:
    path = tmp_path / "upload"
    data = images.image("ext4", 8 * MIB)
    with path.open("xb", buffering=0) as file, followed(court, path) as hearing:
        for start in range(0, len(data), MIB):
            assert hearing.behind_bytes(start) >= 0
            file.write(data[start : start + MIB])
            hearing.tell(file.tell())
            wait_until(lambda: hearing.behind_bytes(file.tell()) == 0, "the judge has read what there is")
        assert hearing.conclude(len(data), always).image_bytes == 8 * MIB


def test_judge_reads_nothing_that_it_was_not_told_of(tmp_path: Path, court: Court) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image("ext4", 8 * MIB))
    with followed(court, path) as hearing:
        hearing.tell(MIB)
        wait_until(lambda: hearing.behind_bytes(MIB) == 0, "the judge has read it")
        assert hearing.conclude(8 * MIB, always).upload_bytes == 8 * MIB


@pytest.mark.parametrize(
    ("data", "reply", "reason"),
    [
        (images.noise(130 * KIB), 550, "not a file system image (data)"),
        (images.pack("gzip", images.tar() + images.noise(200_000)), 550, "not a file system image (POSIX tar archive"),
        (images.image("ext4", 8 * MIB), 550, "ext4 is not accepted here; make an image of ext2"),
        (images.claiming(images.image(), 2**30), 552, "the image unpacks to 1.0 GiB; at most 512.0 MiB"),
        (images.claiming(images.image(), 64 * MIB), 552, "the image has 64.0 MiB, and this upload may have"),
        (
            images.pack("gzip", images.image()) + bytes(128 * KIB),
            550,
            f"at least {128 * KIB} bytes follow the end of the gzip",
        ),
        (images.claiming(images.image(), 2 * MIB), 550, f"the image goes on after the {2 * MIB} bytes"),
    ],
    ids=["noise", "tar", "ext4", "larger than allowed", "larger than an upload", "two streams", "longer"],
)
def test_what_cannot_be_a_job_is_refused_before_its_end(tmp_path: Path, data: bytes, reply: int, reason: str) -> None:
    limits = GateSection(filesystems=("ext2",), max_image=Size(512 * MIB))
    path = tmp_path / "upload"
    path.write_bytes(data)
    with Court(limits, 32 * MIB) as court, followed(court, path) as hearing:
        hearing.tell(len(data))
        with pytest.raises(RefusedError) as refused:
            wait_until(lambda: hearing.heed(), "a refusal")
    assert (refused.value.reply, str(refused.value)[: len(reason)]) == (reply, reason)


def test_ratio_that_no_upload_can_reach_is_refused_before_its_end(tmp_path: Path) -> None:
    limits = GateSection(max_ratio=2, ratio_free=Size(MIB))
    path = tmp_path / "upload"
    data = images.pack("zstd", images.claiming(images.image(), 64 * MIB) + images.noise(128 * KIB))
    path.write_bytes(data)
    with Court(limits, 31 * MIB) as court, followed(court, path) as hearing:
        hearing.tell(len(data))
        with pytest.raises(RefusedError, match=r"more than 2 times the 31\.0 MiB uploaded"):
            wait_until(lambda: hearing.heed(), "a refusal")


def test_small_bomb_is_refused_by_its_ratio_once_its_end_is_known(tmp_path: Path, court: Court) -> None:
    limits = GateSection(max_ratio=20, ratio_free=Size(64 * MIB))
    path = tmp_path / "upload"
    bomb = images.bomb("bzip2", images.claiming(images.image(), 256 * MIB), 256 * MIB)
    with Court(limits) as court, pytest.raises(RefusedError, match="more than 20 times the"):
        grown(court, path, bomb, len(bomb) - 1)


def test_judge_of_an_upload_that_was_cut_ends_without_a_verdict(tmp_path: Path, court: Court) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with followed(court, path) as hearing:
        hearing.tell(MIB)
        judge = the_judge()
    wait_for_end(judge)
    assert admission.check(path, court).filesystem == "ext2"


def test_nobody_waits_for_a_verdict_nobody_wants(tmp_path: Path, court: Court) -> None:
    with pytest.raises(RefusedError) as refused:
        admission.check(big(tmp_path / "upload"), court, wanted=lambda: False)
    assert refused.value.reply == 426
    wait_until(lambda: not judges(), "the judge ends")


# -- judges that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSEGV])
def test_judge_that_crashes_refuses_its_upload_and_no_other(
    tmp_path: Path, court: Court, caplog: pytest.LogCaptureFixture, ending: signal.Signals
) -> None:
    sound, other = tmp_path / "sound", tmp_path / "other"
    sound.write_bytes(images.image())
    other.write_bytes(images.image("ext4", 8 * MIB))
    with followed(court, other) as innocent, court.hear(big(tmp_path / "upload")) as hearing:
        innocent.tell(MIB)
        with ThreadPoolExecutor(1) as thread, caplog.at_level(logging.WARNING):
            waiting = thread.submit(hearing.conclude, 8 * 2**30, always)
            wait_until(lambda: len(judges()) == 2, "both judges are there")
            wait_until(lambda: hearing.behind_bytes(8 * 2**30) < 8 * 2**30, "the judge reads")
            os.kill(max(judges()), ending)
            with pytest.raises(RefusedError, match=BROKEN):
                waiting.result()
        hearing.close()
        assert admission.check(sound, court).filesystem == "ext2", "by a new clerk"
        assert innocent.conclude(8 * MIB, always).filesystem == "ext4", "by the old one"
    assert "a judge ended without a verdict" in caplog.text
    wait_until(lambda: ("status -11" in caplog.text) == (ending == signal.SIGSEGV), "the clerk's word")


def test_no_upload_goes_to_a_clerk_whose_judge_has_crashed(tmp_path: Path, court: Court) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    admission.check(path, court)
    wait_until(lambda: not judges(), "the first judge ends")
    first = court._room
    with followed(court, path) as hearing:
        os.kill(the_judge(), signal.SIGKILL)
        with pytest.raises(RefusedError, match=BROKEN):
            hearing.conclude(4 * MIB, always)
    assert admission.check(path, court).codec == "raw"
    assert court._room is not first
    assert first is not None
    first.thread.join(LONG_S)
    assert not first.thread.is_alive()


def test_judge_that_hangs_refuses_its_upload_and_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with Court(GateSection(timeout=Duration(0.3))) as court, followed(court, path) as hearing:
        judge = the_judge()
        os.kill(judge, signal.SIGSTOP)
        with pytest.raises(RefusedError, match=r"checking it was not done after 0\.3 s; make it smaller"):
            hearing.conclude(4 * MIB, always)
        hearing.close()
        wait_for_end(judge)


def test_judge_that_computes_too_long_says_so_itself(tmp_path: Path) -> None:
    limits = GateSection(timeout=Duration(0.5))
    with Court(limits) as court, followed(court, big(tmp_path / "upload")) as hearing:
        hearing.tell(8 * 2**30 - 1)
        with pytest.raises(RefusedError, match=r"checking it was not done after 0\.5 s"):
            wait_until(lambda: hearing.heed(), "a refusal")


def test_clerk_that_is_killed_refuses_what_its_judges_had_and_the_next_upload_has_another(
    tmp_path: Path, court: Court
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with followed(court, path) as hearing:
        hearing.tell(MIB)
        wait_until(lambda: hearing.behind_bytes(MIB) < MIB, "the judge reads")
        os.kill(clerks()[0], signal.SIGKILL)
        with pytest.raises(RefusedError, match=BROKEN):
            hearing.conclude(4 * MIB, always)
    assert admission.check(path, court).filesystem == "ext2"


def test_idle_clerk_that_is_killed_is_replaced_when_there_is_an_upload(tmp_path: Path, court: Court) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    admission.check(path, court)
    room = court._room
    assert room is not None
    os.kill(clerks()[0], signal.SIGKILL)
    room.thread.join(LONG_S)
    assert admission.check(path, court).filesystem == "ext2"


def test_clerk_is_replaced_after_so_many_uploads(tmp_path: Path, court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courts, "_MOST_UPLOADS", 3)
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    clerks = set()
    for _ in range(7):
        clerks.add(court._room)
        assert admission.check(path, court).filesystem == "ext2"
    assert len(clerks - {None}) == 2
    wait_until(
        lambda: len(court._rooms) and not [room for room in court._rooms - {court._room} if room.thread.is_alive()],
        "old clerks go",
    )


def test_uploads_beyond_what_memory_allows_are_not_followed_but_judged(tmp_path: Path) -> None:
    limits = GateSection(max_memory=Size(2**50))
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    with Court(limits) as court:
        hearings = [followed(court, path) for _ in range(courts.most_followed(limits))]
        assert court.follow(path) is None
        assert admission.check(path, court).filesystem == "ext2"
        hearings.pop().close()
        hearings.append(followed(court, path))
        for hearing in hearings:
            hearing.close()


def test_no_jail_to_be_had_is_our_fault_and_not_the_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    kept = jail.host()

    def nowhere() -> jail.Jail:
        raise ConstruirError("jails are required, and can't be had")

    monkeypatch.setattr(jail, "host", nowhere)
    with Court(GateSection()) as court, pytest.raises(ConstruirError, match="can't be had") as error:
        admission.check(path, court)
    assert not isinstance(error.value, RefusedError)
    monkeypatch.setattr(jail, "host", lambda: kept)
    with Court(GateSection()) as court:
        assert admission.check(path, court).filesystem == "ext2"


def test_many_uploads_at_once_each_have_their_own_verdict(tmp_path: Path, court: Court) -> None:
    kinds = [*CODECS, "cut", "text"]
    data = {codec: images.pack(codec, images.image()) for codec in CODECS}
    data |= {"cut": data["xz"][:-1], "text": images.HELLO}

    def judged(number: int) -> str:
        kind = kinds[number % len(kinds)]
        try:
            return grown(court, tmp_path / f"upload{number}", data[kind], 100 * KIB).codec
        except RefusedError as refused:
            return "cut" if "cut short" in str(refused) else "text"

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(judged, range(96))) == [kinds[number % len(kinds)] for number in range(96)]


# -- the end -----------------------------------------------------------------------------------------------------


def test_closing_the_court_ends_hearings_that_are_not_over(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image())
    court = Court(GateSection())
    with followed(court, path) as hearing:
        judge = the_judge()
        court.close()
        assert judges() == []
        wait_for_end(judge)
        with pytest.raises((RefusedError, ConstruirError)):
            hearing.conclude(4 * MIB, always)
    court.close()


PARENT = """
    import sys, time
    from pathlib import Path
    from construir_ftp.intake.judge_pool import Court
    from construir_ftp.config import GateSection
    court = Court(GateSection())
    hearing = court.follow(Path(sys.argv[1]))
    hearing.tell(1 << 20)
    while hearing.behind_bytes(1 << 20):
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
    """The place of a hearing without a court."""

    in_disorder: bool | None = None

    def failure(self) -> Exception:
        return ConstruirError("no greeting")

    def leave(self, *, in_disorder: bool) -> None:
        self.in_disorder = in_disorder


def heard(greeting: bytes, *messages: bytes) -> tuple[str, bool | None]:
    """What becomes of a hearing whose judge says this and ends: the error, and whether it was in disorder."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    seat = Seat()
    with subprocess.Popen(["sleep", "60"]) as judge, theirs:
        with Hearing(seat, os.open(os.devnull, os.O_RDONLY), ours, GateSection(), 2**40) as hearing:
            pidfd = os.pidfd_open(judge.pid)
            socket.send_fds(theirs, [greeting], [pidfd])
            os.close(pidfd)
            for message in messages:
                # Descriptors that nobody asked for are not taken: the fixture counts them.
                socket.send_fds(theirs, [message], [theirs.fileno()] * 3)
            theirs.close()
            with pytest.raises(ConstruirError) as error:
                hearing.conclude(1, always)
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
