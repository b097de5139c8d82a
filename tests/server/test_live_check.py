"""Uploads that are judged while they come: refused early, held back by their judge, cut, put on the disk."""

import ftplib
import io
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from construir_ftp import files
from construir_ftp.config import GateSection
from construir_ftp.ftp import lingering_close
from construir_ftp.intake import live_check
from construir_ftp.intake.file_writer import FileWriter, Flusher
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.units import Size
from tests.support import images
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, serving, wait_until
from tests.support.images import CODECS, KIB, MIB
from tests.support.prison import judge_pids, judge_server_pids

JOB = images.image("ext4", 8 * MIB)
JUNK = images.noise(130 * KIB)
WHY = "make one with: construir pack DIR"
NO_IMAGE = f"550 Refused: not a file system image (data); {WHY}"


def received(house: House) -> int:
    """Bytes of the upload under way that are in its file."""
    return sum(file.stat().st_size for file in house.spool.state("incoming").glob("*/upload"))


# -- early ---------------------------------------------------------------------------------------------------------


def test_judge_comes_with_the_first_128_kib_and_not_before(house: House) -> None:
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        data.sendall(JOB[: live_check.FIRST_BYTES - 1])
        wait_until(lambda: received(house) == live_check.FIRST_BYTES - 1, "it has arrived")
        assert judge_pids() == []
        data.sendall(JOB[live_check.FIRST_BYTES - 1 :][:1])
        wait_until(judge_pids, "the judge is there")
        data.sendall(JOB[live_check.FIRST_BYTES :])
        data.close()
        assert alice.reply().startswith("226 Accepted")
    wait_until(lambda: not judge_pids(), "the judge ends")


@pytest.mark.parametrize("codec", CODECS)
def test_upload_of_every_codec_that_came_in_pieces_is_accepted(house: House, codec: str) -> None:
    data = images.pack(codec, JOB[: -2 * MIB] + images.noise(2 * MIB))
    with house.connect() as alice:
        assert alice.log_in().store("/queue/x.img", data).startswith("226 Accepted")
    (job,) = house.spool.jobs("queue")
    assert job.upload.read_bytes() == data


def test_upload_that_cannot_be_a_job_is_refused_while_its_client_still_could_send(house: House) -> None:
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        data.sendall(JUNK)
        assert alice.reply() == NO_IMAGE
        assert house.is_untouched()
        assert alice.ask("NOOP").startswith("200"), "the session goes on"
        data.sendall(JUNK)
        assert alice.store("/queue/y.img", JOB).startswith("226 Accepted"), "with the next upload"


def test_contributor_whose_judges_never_end_keeps_no_other_from_a_verdict(house: House) -> None:
    # So small that a judge which stands still holds up no sender.
    small = images.image("ext2", MIB)
    with ExitStack() as sessions:
        stopped: set[int] = set()
        for number in range(2 * (os.cpu_count() or 1) + 4):
            alice = sessions.enter_context(house.connect()).log_in()
            with alice.begin(f"/queue/{number}.img") as data:
                data.sendall(small[: 256 * KIB])
                wait_until(lambda: set(judge_pids()) - stopped, "a judge of hers is there")
                for pid in set(judge_pids()) - stopped:
                    os.kill(pid, signal.SIGSTOP)
                    stopped.add(pid)
                data.sendall(small[256 * KIB :])
        bob = sessions.enter_context(house.connect()).log_in("bob")
        for number in range(3):
            assert bob.store(f"/queue/bob{number}.img", small).startswith("226 Accepted")
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not judge_pids(), "the judges end")


EARLY = {
    "a file system that is not accepted": (JOB, "550 Refused: ext4 is not accepted here"),
    "an image that is too large": (images.claiming(images.image(), 2**30), "552 Refused: the image unpacks to 1.0 GiB"),
    "an image larger than an upload": (images.claiming(images.image(), 128 * MIB), "552 Refused: the image has 128.0"),
    "a raw image with more behind it": (images.image() + images.noise(MIB), "550 Refused: the image goes on after the"),
    "the wrong thing in the right codec": (images.pack("xz", images.noise(MIB)), "550 Refused: not a file system"),
    "another archive": (images.tar() + bytes(200_000), "550 Refused: not a file system image (POSIX tar"),
}


@pytest.mark.parametrize("kind", EARLY)
def test_reason_is_told_before_the_end_of_the_upload(tmp_path: Path, kind: str) -> None:
    data, reason = EARLY[kind]
    gate = GateSection(filesystems=("ext2",), max_image=Size(256 * MIB))
    with (
        serving(tmp_path, gate, max_upload="64MiB") as house,
        house.connect() as alice,
        alice.log_in().begin("/queue/x.img") as connection,
    ):
        connection.sendall(data)
        assert alice.reply().startswith(reason)


@pytest.fixture
def junk(tmp_path: Path) -> Path:
    """A file of 64 MiB that is no image."""
    path = tmp_path / "junk.img"
    path.write_bytes(images.noise(MIB) * 64)
    return path


@pytest.mark.parametrize("client", ["curl", "lftp", "ncftpput", "tnftp", "ftplib"])
def test_client_shows_why_it_was_refused_although_it_had_more_to_send(
    house: House, junk: Path, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "construir.ftp")
    host, port = house.server.address
    lftp = f"set net:max-retries 1; debug 9; open -u alice,'{PASSWORD}' -p {port} {host}; put -O queue {junk}"
    commands: dict[str, list[str | Path]] = {
        "curl": ["curl", "-sSv", "--user", f"alice:{PASSWORD}", "-T", junk, house.url("/queue/")],
        "lftp": ["lftp", "-c", lftp],
        "ncftpput": ["ncftpput", "-d", "stdout", "-u", "alice", "-p", PASSWORD, "-P", str(port), host, "/queue", junk],
        "tnftp": ["tnftp", "-u", f"ftp://alice:{PASSWORD.replace(' ', '%20')}@{host}:{port}/queue/junk.img", junk],
    }
    if client == "ftplib":
        with house.client() as session, junk.open("rb") as file, pytest.raises(ftplib.error_perm, match=WHY):
            session.storbinary("STOR /queue/x.img", file)
    else:
        done = subprocess.run(commands[client], stdout=-1, stderr=-2, timeout=LONG_S, check=False)
        assert WHY in done.stdout.decode(errors="replace")
    refused = [line for line in caplog.messages if "Refused" in line]
    assert refused, caplog.messages
    kept_bytes = int(refused[0].split(" bytes")[0].split()[-1])
    assert kept_bytes < 2 * live_check.MOST_BEHIND_BYTES, "it was refused long before its end"
    assert house.is_untouched()


# -- what is left of a refused upload --------------------------------------------------------------------------------


def refused(house: House) -> tuple[Control, socket.socket]:
    """A session whose upload has just been refused, and its data connection."""
    alice = house.connect().log_in()
    data = alice.begin("/queue/x.img")
    data.sendall(JUNK)
    assert alice.reply() == NO_IMAGE
    return alice, data


def send_on(data: socket.socket) -> None:
    """Send without an end."""
    while True:
        data.sendall(JUNK)


def test_no_more_is_thrown_away_than_is_reasonable(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "_MOST_BYTES", MIB)
    alice, data = refused(house)
    with alice, data, pytest.raises(ConnectionError):
        send_on(data)


def test_nothing_is_thrown_away_for_longer_than_is_reasonable(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "_MOST_S", 0.2)
    alice, data = refused(house)
    with alice, data, pytest.raises(ConnectionError):
        send_on(data)


def test_session_has_one_refused_upload_drained_at_most(house: House) -> None:
    alice, first = refused(house)
    with alice, first, alice.begin("/queue/y.img") as second:
        second.sendall(JUNK)
        assert alice.reply() == NO_IMAGE
        with pytest.raises(ConnectionError):
            send_on(first)
        second.sendall(JUNK)


def test_what_is_drained_ends_with_its_session_and_with_the_server(house: House) -> None:
    alice, data = refused(house)
    alice.close()
    with data, pytest.raises(ConnectionError):
        send_on(data)
    alice, data = refused(house)
    with alice, data:
        house.server.stop()
        house.thread.join(LONG_S)
        house.server.close()
        with pytest.raises(ConnectionError):
            send_on(data)


# -- judges that fail, or fall behind ----------------------------------------------------------------------------------


def test_judge_that_is_killed_refuses_this_upload_at_once_and_nothing_else(house: House) -> None:
    with house.connect() as alice:
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(JOB[: 4 * MIB])
            wait_until(judge_pids, "the judge is there")
            os.kill(judge_pids()[0], signal.SIGKILL)
            assert alice.reply() == "550 Refused: checking it failed; if the image is sound, tell the operator"
        assert house.is_untouched()
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_judges_of_uploads_that_were_cut_end(house: House) -> None:
    sessions = [house.connect().log_in() for _ in range(3)]
    uploads = [session.begin("/queue/x.img") for session in sessions]
    for upload in uploads:
        upload.sendall(JOB[:MIB])
    wait_until(lambda: len(judge_pids()) == 3, "each has its judge")
    for session, upload in zip(sessions, uploads, strict=True):
        session.close()
        upload.close()
    wait_until(lambda: not judge_pids(), "the judges end")
    wait_until(lambda: not house.names("queue"), "nothing is admitted")


@pytest.mark.steady(0.3)
def test_client_sends_no_faster_than_the_judge_reads_and_is_never_stopped_for_long(house: House) -> None:
    large = images.claiming(images.image("ext4", 8 * MIB), 256 * MIB) + bytes(248 * MIB)
    most_bytes = live_check.MOST_BEHIND_BYTES
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        data.sendall(large[:MIB])
        wait_until(judge_pids, "the judge is there")
        (judge,) = judge_pids()
        os.kill(judge, signal.SIGSTOP)
        data.settimeout(0.5)
        sent_bytes = MIB
        with pytest.raises(TimeoutError):
            while sent_bytes < 200 * MIB:
                sent_bytes += data.send(large[sent_bytes : sent_bytes + MIB])
        taken_bytes = received(house)
        assert live_check.LEAST_BEHIND_BYTES < taken_bytes < 2 * most_bytes
        (channel,) = [session.data_channel for session in house.listener.sessions if session.upload]
        clamp_bytes = channel.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP)
        assert clamp_bytes == live_check.LEAST_BEHIND_BYTES, "nor does the kernel take much more"
        wait_until(lambda: received(house) > taken_bytes, "something is taken now and then")
        with house.connect() as bob:
            assert bob.log_in("bob").ask("NOOP").startswith("200"), "others are served"
        os.kill(judge, signal.SIGCONT)
        data.settimeout(LONG_S)
        data.sendall(large[sent_bytes:])
        data.close()
        assert alice.reply().startswith("226 Accepted")


def test_what_a_slow_judge_has_still_to_read_is_measured_by_its_pace(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(images.image("ext4", 64 * MIB))
    with JudgePool(GateSection()) as judges:
        follower = live_check.LiveCheck(judges, path, lambda: 2**40)
        follower.feed(8 * MIB)
        wait_until(lambda: not follower.is_behind(8 * MIB, part=0.01), "the judge has read so much")
        assert not follower.is_behind(8 * MIB + live_check.LEAST_BEHIND_BYTES)
        assert follower.is_behind(8 * MIB + live_check.MOST_BEHIND_BYTES + 1)
        follower._begun_s -= 8.0  # as if that had taken eight seconds
        assert not follower.is_behind(8 * MIB + live_check.LEAST_BEHIND_BYTES)
        assert follower.is_behind(8 * MIB + 2 * live_check.LEAST_BEHIND_BYTES)
        follower.close()


def test_upload_that_waits_for_its_judge_can_be_aborted(house: House) -> None:
    large = images.claiming(images.image("ext4", 8 * MIB), 256 * MIB) + bytes(64 * MIB)
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        data.sendall(large[:MIB])
        wait_until(judge_pids, "the judge is there")
        os.kill(judge_pids()[0], signal.SIGSTOP)
        data.settimeout(0.5)
        with pytest.raises(TimeoutError):
            data.sendall(large[MIB:])
        alice.send("ABOR")
        assert alice.reply().startswith("426")
        assert alice.reply().startswith("226 Abort")
        wait_until(lambda: not judge_pids(), "the judge ends")
        assert house.names("queue") == []


def test_upload_is_accepted_where_no_more_can_be_followed(tmp_path: Path) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        house.listener.intake.judges.most_followed = 0
        assert alice.log_in().store("/queue/x.img", JOB).startswith("226 Accepted")
        assert alice.store("/queue/x.img", JUNK) == NO_IMAGE


def test_upload_nobody_followed_is_judged_while_it_is_put_on_stable_storage(tmp_path: Path) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        house.listener.intake.judges.most_followed = 0
        is_done = threading.Event()

        def hold() -> None:
            is_done.wait(LONG_S)

        house.listener.intake.flusher.submit(hold)
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(images.image("ext4", 12 * MIB))
        wait_until(judge_pids, "the judge is there")
        wait_until(lambda: not judge_pids(), "it has read all of it")
        assert house.names("queue") == []
        is_done.set()
        assert alice.reply().startswith("226 Accepted")


def test_upload_whose_judge_never_came_is_judged_in_the_end(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        wait_until(judge_server_pids, "the judge_server is there")
        (judge_server,) = judge_server_pids()
        os.kill(judge_server, signal.SIGSTOP)
        data.sendall(JOB[:MIB])
        wait_until(lambda: received(house) == MIB, "it has arrived")
        os.kill(judge_server, signal.SIGKILL)
        wait_until(lambda: "it will be judged when it is whole" in caplog.text, "it is noticed")
        data.sendall(JOB[MIB:])
        data.close()
        assert alice.reply().startswith("226 Accepted")


# -- the file ------------------------------------------------------------------------------------------------------


@pytest.fixture
def flusher() -> Iterator[Flusher]:
    flusher = Flusher()
    yield flusher
    flusher.close()


def test_recording_holds_what_was_written_and_no_room_beyond_it(tmp_path: Path, flusher: Flusher) -> None:
    data = images.noise(20 * MIB + 12345)
    file = FileWriter(tmp_path / "upload", os.O_CREAT | os.O_EXCL, flusher)
    source = io.BytesIO(data)
    while piece := source.read(MIB):
        file.write(memoryview(piece), 2**40)
    file.settle(durable=True)
    status = (tmp_path / "upload").stat()
    assert (tmp_path / "upload").read_bytes() == data
    assert status.st_blocks * 512 < len(data) + MIB


def test_recording_goes_on_at_the_end_of_what_is_there(tmp_path: Path, flusher: Flusher) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"first ")
    file = FileWriter(path, os.O_APPEND, flusher)
    assert file.size_bytes == 6
    file.write(b"second", 0)
    assert file.size_bytes == 12
    file.settle(durable=False)
    assert path.read_bytes() == b"first second"


def test_room_is_set_aside_only_where_there_is_some_to_spare(tmp_path: Path, flusher: Flusher) -> None:
    path, taken = tmp_path / "upload", []
    file = FileWriter(path, os.O_CREAT, flusher)
    for spare_bytes in (0, 7 * MIB, 2**40):
        file.write(bytes(8 * MIB), spare_bytes)
        assert file._flush is not None
        file._flush.result()
        os.sync()  # blocks count once they are written
        taken.append(files.allocated_bytes(path) // MIB)
    file.settle(durable=False)
    assert taken == [8, 16, 48]
    assert files.allocated_bytes(path) // MIB == 24, "what is not used is given back"


def test_accepted_upload_is_on_stable_storage_before_the_reply(house: House, tmp_path: Path) -> None:
    """What the kernel was asked for, in order: room, writing back, the end, and fsync before the job is renamed."""
    log = tmp_path / "calls"
    calls = "fallocate,sync_file_range,ftruncate,fsync,rename,sendto"
    tracer = subprocess.Popen(["strace", "-f", "-y", "-o", log, "-e", f"trace={calls}", "-p", str(os.getpid())])
    wait_until(lambda: log.exists() and "TracerPid:\t0" not in Path("/proc/self/status").read_text(), "it is traced")
    large = images.claiming(images.image("ext4", 8 * MIB), 64 * MIB) + bytes(56 * MIB)
    with house.connect() as alice:
        reply = alice.log_in().store("/queue/x.img", large)
    tracer.send_signal(signal.SIGINT)
    tracer.wait(LONG_S)
    assert reply.startswith("226 Accepted")
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    upload = [line.partition("(")[0] for line in lines if "/upload>" in line and "(" in line]
    assert upload.index("fallocate") < upload.index("sync_file_range") < upload.index("ftruncate")
    synced = next(number for number, line in enumerate(lines) if line.startswith("fsync(") and "/upload>" in line)
    renamed = next(number for number, line in enumerate(lines) if line.startswith("rename(") and "/queue/" in line)
    replied = next(number for number, line in enumerate(lines) if "226 Accepted" in line)
    assert synced < renamed < replied
