"""Promises of quotas: one contributor never has more waiting than allowed, and is told what to do about it."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import images
from tests.support.ftpclient import PASSWORD, House, serving, wait_until

JOB = images.image("ext2", 2**20)
# More than the quota of these tests, and nothing that a judge would have refused before: its length is not said in it.
LARGE = images.pack("zstd", images.claiming(JOB, 8 * 2**20) + images.noise(7 * 2**20))
TOO_MANY = "552 Refused: you have 2 jobs waiting; 2 is the most allowed; wait for one to run, or delete one"


def test_job_too_many_is_refused_before_a_byte_and_others_send_theirs(tmp_path: Path) -> None:
    with serving(tmp_path, max_waiting_jobs=2) as house, house.connect() as alice, house.connect() as bob:
        alice.log_in().ask("CWD queue")
        for name in ("a.img", "b.img"):
            assert alice.store(name, JOB).startswith("226")
        with alice.passive():
            assert alice.ask("STOR c.img") == TOO_MANY
        assert house.names("incoming") == []
        assert bob.log_in("bob").store("/queue/c.img", JOB).startswith("226")
        house.spool.take()
        assert alice.store("c.img", JOB).startswith("226"), "one has been taken"
        house.spool.delete(house.spool.jobs("queue")[0])
        house.spool.delete(house.spool.jobs("queue")[0])
        assert alice.store("d.img", JOB).startswith("226"), "two were deleted"


def test_uploads_under_way_count_as_jobs(tmp_path: Path) -> None:
    with serving(tmp_path, max_waiting_jobs=2) as house, house.connect() as first, house.connect() as second:
        assert first.log_in().store("/queue/a.img", JOB).startswith("226")
        with first.begin("/queue/b.img") as data:
            second.log_in()
            with second.passive():
                assert "you have 1 jobs waiting, and 1 more are being sent or checked" in second.ask(
                    "STOR /queue/c.img"
                )
            data.sendall(b"no job")
        assert first.reply().startswith("550")
        assert second.store("/queue/c.img", JOB).startswith("226"), "what was refused counts no longer"


def test_upload_is_stopped_as_soon_as_it_takes_more_than_allowed_with_what_waits(tmp_path: Path) -> None:
    with serving(tmp_path, max_waiting="3MiB") as house, house.connect() as alice:
        assert alice.log_in().store("/queue/a.img", JOB).startswith("226")
        with alice.begin("/queue/b.img") as data, suppress(ConnectionError):
            data.sendall(LARGE)
        reply = alice.reply()
        assert reply.startswith("552 Refused: your waiting jobs and this one take more than 3145728 bytes"), reply
        assert reply.endswith("wait for one to run, or delete one")
        assert house.names("incoming") == []
        assert alice.store("/queue/b.img", JOB).startswith("226")


def test_image_that_is_larger_than_what_is_left_is_refused_by_its_first_128_kib(tmp_path: Path) -> None:
    with serving(tmp_path, max_waiting="3MiB") as house, house.connect() as alice:
        assert alice.log_in().store("/queue/a.img", JOB).startswith("226")
        with alice.begin("/queue/b.img") as data:
            data.sendall(images.claiming(JOB, 4 * 2**20)[: 128 * 2**10])
            reply = alice.reply()
        assert reply.startswith(
            "552 Refused: the image has 4.0 MiB, and this upload may have 2.0 MiB at most; compress"
        )
        assert alice.store("/queue/b.img", JOB).startswith("226")


@pytest.mark.parametrize(
    ("announced", "reply"),
    [
        ("2097153", "552 Refused: your waiting jobs and this one take more than 3145728 bytes"),
        ("2097153 R 512", "552 Refused: your waiting jobs and this one take more than 3145728 bytes"),
        ("9000000", "552 Refused: larger than 8388608 bytes, the most this server takes"),
        ("999999999999999999", "552 Refused: larger than"),
    ],
)
def test_upload_that_is_announced_as_too_large_is_refused_before_a_byte(
    tmp_path: Path, announced: str, reply: str
) -> None:
    with serving(tmp_path, max_waiting="3MiB", max_upload="8MiB") as house, house.connect() as alice:
        assert alice.log_in().store("/queue/a.img", JOB).startswith("226")
        with alice.passive():
            assert alice.ask(f"ALLO {announced}").startswith("200")
            assert alice.ask("STOR /queue/b.img").startswith(reply)
        assert house.names("incoming") == []
        assert alice.store("/queue/b.img", JOB).startswith("226"), "that was said of the upload before"


@pytest.mark.parametrize("announced", [len(JOB), len(JOB) - 5, 0, 2 * len(JOB)])
def test_announced_size_is_no_promise(tmp_path: Path, announced: int) -> None:
    with serving(tmp_path, max_waiting="3MiB") as house, house.connect() as alice:
        assert alice.log_in().ask(f"ALLO {announced}").startswith("200")
        assert alice.store("/queue/a.img", JOB).startswith("226")
        assert not shares(house)


@pytest.mark.parametrize("words", ["much", "-1", "1.5", "1" * 19, "5 R", "5 R x", "٣"])
def test_announcement_without_a_number_is_told_so(tmp_path: Path, words: str) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        assert alice.log_in().ask(f"ALLO {words}") == "501 Send ALLO with a number of bytes."


def test_lftp_announces_what_it_sends(tmp_path: Path) -> None:
    (tmp_path / "large.img.zst").write_bytes(LARGE)
    with serving(tmp_path, max_waiting="3MiB") as house:
        script = f'open -u "alice,{PASSWORD}" {house.url("/")}; put -O queue large.img.zst'
        lftp = subprocess.run(["lftp", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert lftp.returncode == 1
        assert "552 Refused: your waiting jobs and this one take more than 3145728 bytes" in lftp.stderr
        assert house.names("incoming") == []


def test_bytes_of_all_uploads_under_way_count_together(tmp_path: Path) -> None:
    with serving(tmp_path, max_waiting="3MiB") as house, house.connect() as first, house.connect() as second:
        with first.log_in().begin("/queue/a.img") as data:
            data.sendall(LARGE[: 2 * len(JOB)])
            upload = house.spool.state("incoming") / house.names("incoming")[0] / "upload"
            wait_until(lambda: upload.stat().st_size == 2 * len(JOB), "two of three MiB have come")
            with second.log_in().begin("/queue/b.img") as more, suppress(ConnectionError):
                more.sendall(LARGE[: 2 * len(JOB)])
            assert second.reply().startswith("552 Refused: ")
            assert first.ask("STAT").startswith("211"), "the first one goes on"
        assert first.reply().startswith("550"), "it is no job"
        assert second.store("/queue/b.img", JOB).startswith("226")


def shares(house: House) -> int:
    return len(house.listener.intake.quotas.under_way)


@pytest.mark.steady(1)
def test_every_end_of_an_upload_gives_its_share_back(tmp_path: Path) -> None:
    with serving(tmp_path, max_waiting_jobs=1, idle_timeout="2s") as house:
        for end in ("abort", "cut", "leave", "stall"):
            with house.connect() as alice:
                data = alice.log_in().begin("/queue/a.img")
                data.sendall(JOB[:1000])
                if end == "abort":
                    assert alice.ask("ABOR").startswith("426")
                elif end == "leave":
                    alice.close()
                elif end == "stall":
                    assert alice.reply().startswith("426")
                data.close()
            wait_until(lambda: not shares(house), f"nothing is left after: {end}")
        with house.connect() as alice:
            alice.send("USER alice", f"PASS {PASSWORD}", "TYPE I", "EPSV", "STOR /queue/../a")
            while not alice.reply().startswith("553"):
                pass
        assert not shares(house), "nor after a refusal"
