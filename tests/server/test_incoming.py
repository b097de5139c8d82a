"""partial, queue, filing: what was cut can be continued, what has a temporary name is no job, and each sees its own."""

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from construir_ftp.appliance import janitor
from construir_ftp.config import JanitorSection
from construir_ftp.intake.incoming import Partials
from construir_ftp.jobs.spool import Spool
from construir_ftp.units import Duration
from tests.support import images
from tests.support.ftpclient import Control, House, serving, wait_until

JOB = images.image("ext2", 2**20)
OTHER = images.image("ext2", 2**20, "-L", "other")


@pytest.fixture
def alice(house: House) -> Iterator[Control]:
    with house.connect() as control:
        control.log_in().ask("CWD /queue")
        yield control


def cut(control: Control, name: str, content: bytes, command: str = "STOR") -> int:
    """Send `content`, and break it off; how much of it is kept."""
    with control.begin(name, command) as data:
        data.sendall(content)
        wait_until(lambda: f"received: {len(content)}\r" in control.ask("STAT"), "all has arrived")
        assert control.ask("ABOR").startswith("426")
        assert control.reply().startswith("226 Abort")
    size = control.ask(f"SIZE {name}")
    return int(size.split()[1]) if size.startswith("213") else 0


def only_job(house: House) -> bytes:
    (job,) = house.spool.jobs("queue")
    assert sorted(path.name for path in job.path.iterdir()) == ["job.json", "upload"]
    return job.upload.read_bytes()


# -- continuing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["REST", "APPE"])
def test_cut_upload_is_continued_and_becomes_the_job_it_is(house: House, alice: Control, how: str) -> None:
    kept = cut(alice, "x.img", JOB[:400_000])
    assert 0 < kept < 400_000
    if how == "REST":
        assert alice.ask(f"REST {kept}").startswith("350")
        assert alice.store("x.img", JOB[kept:]).startswith("226 Accepted")
    else:
        assert alice.store("x.img", JOB[kept:], "APPE").startswith("226 Accepted")
    assert only_job(house) == JOB
    assert house.names("incoming") == []


def test_upload_can_be_cut_and_continued_many_times(house: House, alice: Control) -> None:
    kept = 0
    for _ in range(5):
        alice.ask(f"REST {kept}")
        kept = cut(alice, "x.img", JOB[kept : kept + 100_000])
    assert kept > 400_000
    alice.ask(f"REST {kept}")
    assert alice.store("x.img", JOB[kept:]).startswith("226 Accepted")
    assert only_job(house) == JOB


def test_upload_that_had_arrived_whole_when_it_was_cut_still_has_something_to_send(
    house: House, alice: Control
) -> None:
    assert cut(alice, "x.img", JOB) < len(JOB), "a client that finds all of it there takes it for accepted"


@pytest.mark.parametrize(
    "job", [JOB, images.pack("zstd", OTHER), images.pack("gzip", OTHER)], ids=["raw", "zstd", "gzip"]
)
def test_upload_that_ends_early_is_refused_and_can_be_continued(house: House, alice: Control, job: bytes) -> None:
    """A data connection that was closed in good order may have been cut all the same: Ctrl-C in some clients."""
    half = len(job) // 2
    reply = alice.store("x.img", job[:half])
    assert reply.startswith("550 Refused: ")
    assert reply.endswith(f"cut short; send it again, or go on after the {half - 1} bytes that are kept")
    assert house.keeps({"x.img": half - 1})
    alice.ask(f"REST {half - 1}")
    assert alice.store("x.img", job[half - 1 :]).startswith("226")
    assert only_job(house) == job


def test_what_is_whole_and_too_short_is_not_kept(house: House, alice: Control) -> None:
    assert alice.store("x.img", images.pack("zstd", JOB[:-4096])).startswith("550 Refused: the image ends after ")
    assert house.is_untouched()


def test_renamed_file_that_ends_early_stays_under_its_temporary_name(house: House, alice: Control) -> None:
    assert alice.store("tmp.x.img", JOB[:5000]).startswith("226 Kept")
    alice.ask("RNFR tmp.x.img")
    assert alice.ask("RNTO x.img").startswith("550 Refused: ")
    assert house.keeps({"tmp.x.img": 4999})
    alice.ask("REST 4999")
    assert alice.store("tmp.x.img", JOB[4999:]).startswith("226 Kept")
    alice.ask("RNFR tmp.x.img")
    assert alice.ask("RNTO x.img").startswith("250 Accepted")
    assert only_job(house) == JOB


def test_continuing_survives_sessions_and_a_restart_of_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        kept = cut(alice.log_in(), "/queue/x.img", JOB[:400_000])
    with serving(tmp_path) as house:
        with house.connect() as bob:
            assert bob.log_in("bob").ask("SIZE /queue/x.img").startswith("550")
        with house.connect() as alice:
            assert alice.log_in().ask("SIZE /queue/x.img") == f"213 {kept}"
            alice.ask(f"REST {kept}")
            assert alice.store("/queue/x.img", JOB[kept:]).startswith("226")
            assert only_job(house) == JOB


def test_upload_under_way_when_the_server_is_killed_can_be_continued_unless_the_machine_went_down(
    tmp_path: Path,
) -> None:
    for boot, is_there in ((Path("/proc/sys/kernel/random/boot_id").read_text().strip(), True), ("another", False)):
        place = tmp_path / boot / "spool" / "incoming" / "0123456789abcdef"
        place.mkdir(parents=True)
        (place / "upload").write_bytes(JOB[:1000])
        note = {"name": "x.img", "contributor": "alice", "boot": boot, "is_whole": False}
        (place / "partial.json").write_text(json.dumps(note))
        with serving(tmp_path / boot) as house, house.connect() as alice:
            assert alice.log_in().ask("SIZE /queue/x.img").startswith("213 1000" if is_there else "550")


@pytest.mark.parametrize("before", [1, 1000, 300_000, 399_998])
def test_what_is_kept_is_shortened_to_where_it_is_continued(
    house: House, alice: Control, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "construir.ftp")
    kept = cut(alice, "x.img", JOB[:400_000])
    assert kept == 399_999
    assert alice.ask(f"REST {kept - before}").startswith("350")
    assert alice.store("x.img", JOB[kept - before :]).startswith("226 Accepted")
    assert only_job(house) == JOB
    assert f"from byte {kept - before}" in caplog.text


@pytest.mark.parametrize(("offset", "is_kept"), [(1, True), (10**6, True), (-1, False), (1, False)])
def test_nothing_is_continued_behind_its_end(house: House, alice: Control, offset: int, is_kept: bool) -> None:
    kept = cut(alice, "x.img", JOB[:400_000]) if is_kept else 1000
    assert alice.ask(f"REST {kept + offset}").startswith("350")
    with alice.passive():
        reply = alice.ask("STOR x.img")
        assert reply.startswith("554 Refused: "), reply
        assert (f"{kept} bytes of x.img are kept" in reply) == is_kept
    assert house.kept() == ({"x.img": kept} if is_kept else {})


def test_what_has_arrived_when_it_is_aborted_is_kept(house: House, alice: Control) -> None:
    for size in (1000, 60_000):
        with alice.begin("x.img") as data:
            data.sendall(JOB[:size])
            assert alice.ask("ABOR").startswith("426")
            assert alice.reply().startswith("226 Abort")
        assert house.kept() == {"x.img": size - 1}


def test_what_has_arrived_when_its_session_is_cut_is_kept(house: House) -> None:
    with house.connect() as cut_off, cut_off.log_in().begin("/queue/x.img") as data:
        data.sendall(JOB[:60_000])
        cut_off.cut()
        wait_until(house.kept, "it is kept")
    assert house.kept() == {"x.img": 59_999}


def test_continuing_with_the_wrong_bytes_is_no_job(house: House, alice: Control) -> None:
    job = images.pack("zstd", JOB)
    kept = cut(alice, "x.img", job[: len(job) // 2])
    alice.ask(f"REST {kept}")
    assert alice.store("x.img", job).startswith("550 Refused: "), "from its beginning, as ncftpput 3.2.6 does"
    assert house.is_untouched()


def test_sending_it_anew_replaces_what_was_kept(house: House, alice: Control) -> None:
    cut(alice, "x.img", OTHER[:400_000])
    assert alice.store("x.img", JOB).startswith("226")
    assert only_job(house) == JOB
    assert house.names("incoming") == house.names("trash") == []
    assert cut(alice, "x.img", JOB[:5000]) == 4999
    assert cut(alice, "x.img", JOB[:3000]) == 2999
    wait_until(lambda: len(house.names("incoming")) == 1, "the first one is deleted")


def test_accepted_job_is_never_continued_or_overwritten(house: House, alice: Control) -> None:
    assert alice.store("x.img", JOB).startswith("226")
    assert alice.ask("SIZE x.img") == f"213 {len(JOB)}"
    with alice.passive():
        assert alice.ask("APPE x.img").startswith("550 Refused: ")
        alice.ask(f"REST {len(JOB)}")
        assert alice.ask("STOR x.img").startswith("554 Refused: ")
        alice.ask("REST 5")
        assert alice.ask("STOR x.img").startswith("554 Refused: ")
    assert only_job(house) == JOB
    # What is cut afterwards is another job of the same name, and the accepted one goes by its id meanwhile.
    kept = cut(alice, "x.img", OTHER[:400_000])
    job_id = house.names("queue")[0]
    assert sorted(alice.fetch("NLST").decode().split()) == sorted(["x.img", job_id])
    alice.ask(f"REST {kept}")
    assert alice.store("x.img", OTHER[kept:]).startswith("226")
    assert len(house.names("queue")) == 2
    assert (house.spool.state("queue") / job_id / "upload").read_bytes() == JOB


def test_appe_to_nothing_is_a_new_upload(house: House, alice: Control) -> None:
    assert alice.store("x.img", JOB, "APPE").startswith("226")
    assert only_job(house) == JOB


def test_another_session_takes_over_what_a_dead_connection_was_sending(house: House, alice: Control) -> None:
    with alice.begin("x.img") as data:
        data.sendall(JOB[:400_000])
        with house.connect() as again:
            again.log_in()
            wait_until(lambda: again.ask("SIZE /queue/x.img") == "213 400000", "all has arrived")
            again.ask("REST 400000")
            with again.passive():
                assert again.ask("STOR /queue/x.img").startswith("450 Refused: ")
            assert alice.reply().startswith("426 Another session of yours sends it; 399999 bytes are kept")
            assert again.ask("SIZE /queue/x.img") == "213 399999"
            again.ask("REST 399999")
            assert again.store("/queue/x.img", JOB[399_999:]).startswith("226")
    assert only_job(house) == JOB


def test_what_is_kept_while_something_newer_comes_and_goes_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partials = Partials(Spool.prepare(tmp_path), 5, 10**6)
    old = partials.begin("x.img", "alice")
    old.job.upload.write_bytes(JOB[:1000])

    def meanwhile(descriptor: int) -> None:
        monkeypatch.undo()
        partials.delete(partials.begin("x.img", "alice"))
        os.fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    assert partials.keep(old, is_whole=False) == 0
    assert list((tmp_path / "incoming").iterdir()) == []


def test_two_sessions_that_send_the_same_name_send_two_jobs(house: House, alice: Control) -> None:
    with house.connect() as other, other.log_in().begin("/queue/x.img") as second, alice.begin("x.img") as first:
        first.sendall(JOB)
        second.sendall(OTHER)
        first.close()
        second.close()
        assert alice.reply().startswith("226")
        assert other.reply().startswith("226")
    assert sorted(job.upload.read_bytes() for job in house.spool.jobs("queue")) == sorted([JOB, OTHER])
    wait_until(lambda: house.names("incoming") == [], "nothing is left")


def test_no_more_is_kept_than_allowed_and_the_newest(tmp_path: Path) -> None:
    with serving(tmp_path, max_partial_files=3, max_partial="10KiB") as house, house.connect() as alice:
        alice.log_in().ask("CWD /queue")
        for number in range(5):
            assert cut(alice, f"{number}.img", JOB[:1001]) == 1000
        wait_until(lambda: house.keeps({f"{number}.img": 1000 for number in (2, 3, 4)}), "the oldest are deleted")
        assert cut(alice, "5.img", JOB[:9001]) == 9000
        wait_until(lambda: house.keeps({"4.img": 1000, "5.img": 9000}), "the oldest are deleted")
        assert cut(alice, "6.img", JOB[:20_000]) == 0
        assert alice.store("tmp.7.img", JOB).startswith("552 Refused: ")
        wait_until(lambda: house.keeps({"4.img": 1000, "5.img": 9000}), "too much to be kept at all")
        assert alice.store("8.img", JOB).startswith("226"), "what becomes a job is not kept"


def test_files_of_sources_wait_within_the_same_bounds_and_are_seen_by_their_contributor_alone(tmp_path: Path) -> None:
    names = [f"words_{number}.tar.xz" for number in range(5)]
    with serving(tmp_path, max_partial_files=3) as house, house.connect() as alice, house.connect() as bob:
        alice.log_in().ask("CWD /queue")
        bob.log_in("bob").ask("CWD /queue")
        for name in names:
            assert alice.store(name, JOB[:1000]) == f"226 Kept as {name}; its .changes makes a job of it."
        wait_until(lambda: house.keeps(dict.fromkeys(names[2:], 1000)), "the oldest are deleted")
        assert sorted(alice.fetch("NLST").decode().split()) == names[2:]
        assert bob.fetch("NLST") == b""
        assert bob.ask(f"SIZE {names[4]}").startswith("550")
        assert alice.store("words_4.tar.xz", OTHER).startswith("226 Kept")
        wait_until(lambda: house.keeps({names[2]: 1000, names[3]: 1000, names[4]: len(OTHER)}), "the newest of a name")


def test_janitor_deletes_what_nobody_has_continued(house: House, alice: Control) -> None:
    cut(alice, "old.img", JOB[:5000])
    (old,) = house.names("incoming")
    cut(alice, "new.img", JOB[:5000])
    place = house.spool.state("incoming") / old
    for path in (place / "upload", place / "partial.json", place):
        os.utime(path, (0, 0))
    limits = JanitorSection(incoming_age=Duration.parse("1h"))
    janitor.prune(house.spool, limits, 0, datetime.now(UTC), dry_run=False)  # type: ignore[arg-type]
    assert alice.ask("SIZE old.img").startswith("550")
    assert alice.ask("SIZE new.img") == "213 4999"
    alice.ask("REST 4999")
    with alice.passive():
        assert alice.ask("STOR old.img").startswith("554")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"name": 5}', b"\xff", b"[" * 100_000, b'{"name": "../x"}', None])
def test_damaged_notes_of_an_earlier_server_are_left_to_the_janitor(tmp_path: Path, damage: bytes | None) -> None:
    with serving(tmp_path) as house:
        place = house.spool.receive()
        place.upload.write_bytes(b"x")
        if damage is not None:
            (place.path / "partial.json").write_bytes(damage)
        assert Partials(house.spool, 1, 1).of("alice") == []


# -- temporary names -----------------------------------------------------------------------------------------------

TEMPORARY = [".in.x.img", "tmp.x.img", "x.img.filepart", "x.img.part", "x.img.partial", "x.img.tmp", ".x.img"]


@pytest.mark.parametrize("name", TEMPORARY)
def test_temporary_name_starts_nothing_until_it_is_renamed(house: House, alice: Control, name: str) -> None:
    assert alice.store(name, JOB) == f"226 Kept as {name}; it becomes a job when it is renamed."
    assert house.keeps({name: len(JOB)})
    assert alice.ask(f"SIZE {name}") == f"213 {len(JOB)}"
    assert alice.fetch("NLST").decode().split() == [name]
    assert alice.ask(f"RNFR {name}").startswith("350")
    reply = alice.ask("RNTO x.img")
    assert reply.startswith("250 Accepted as job "), reply
    assert ", number 1 in the queue; its result will be in /done/" in reply
    assert only_job(house) == JOB
    assert house.spool.jobs("queue")[0].record().filename == "x.img"
    assert alice.fetch("NLST").decode().split() == ["x.img"]


def test_what_is_no_job_is_refused_when_it_is_renamed(house: House, alice: Control) -> None:
    alice.store(".in.x.img", b"no image\n")
    alice.ask("RNFR .in.x.img")
    assert alice.ask("RNTO x.img").startswith("550 Refused: ")
    assert house.is_untouched()
    assert alice.ask("NOOP").startswith("200")


def test_temporary_name_outlives_the_session_and_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        alice.log_in().store("/queue/tmp.x.img", JOB)
    with serving(tmp_path) as house:
        with house.connect() as bob:
            assert bob.log_in("bob").ask("RNFR /queue/tmp.x.img").startswith("550")
        with house.connect() as alice:
            assert alice.log_in().ask("RNFR /queue/tmp.x.img").startswith("350")
            assert alice.ask("RNTO /queue/x.img").startswith("250")


def test_cut_upload_under_a_temporary_name_is_not_renamed_before_the_rest_has_come(
    house: House, alice: Control
) -> None:
    kept = cut(alice, ".in.x.img", JOB[:400_000])
    assert alice.ask("RNFR .in.x.img").startswith("550")
    assert alice.ask("RNTO x.img").startswith("503")
    alice.ask(f"REST {kept}")
    assert alice.store(".in.x.img", JOB[kept:]).startswith("226 Kept")
    alice.ask("RNFR .in.x.img")
    assert alice.ask("RNTO x.img").startswith("250")
    assert only_job(house) == JOB


def test_temporary_name_can_be_changed_for_another(house: House, alice: Control) -> None:
    alice.store("tmp.y", OTHER)
    alice.store("tmp.x", JOB)
    alice.ask("RNFR tmp.x")
    assert alice.ask("RNTO tmp.y").startswith("250 Kept")
    assert house.keeps({"tmp.y": len(JOB)})
    alice.ask("RNFR tmp.y")
    assert alice.ask("RNTO y").startswith("250 Accepted")
    assert only_job(house) == JOB


def test_renaming_what_made_good_a_cut_upload_leaves_nothing_of_it(house: House, alice: Control) -> None:
    cut(alice, "x.img", OTHER[:5000])
    alice.store(".in.x.img", JOB)
    alice.ask("RNFR .in.x.img")
    assert alice.ask("RNTO x.img").startswith("250")
    assert house.names("incoming") == house.names("trash") == []
    assert alice.ask("SIZE x.img") == f"213 {len(JOB)}"


def test_accepted_job_sent_under_some_other_temporary_name_can_be_renamed_in_name(house: House, alice: Control) -> None:
    job_id = alice.store("XX-x.img", JOB).split()[4].rstrip(",")
    assert alice.ask("RNFR XX-x.img").startswith("350")
    assert alice.ask("RNTO x.img") == f"250 Accepted as job {job_id} already."
    assert alice.ask("SIZE x.img") == f"213 {len(JOB)}"
    with house.connect() as later:
        assert later.log_in().ask("RNFR /queue/XX-x.img").startswith("550"), "not in another session"


@pytest.mark.parametrize("target", ["/done/x.img", "../x.img", "/x.img", "a/b.img", "..", "x y.img", "x\x1b.img", ""])
def test_nothing_is_renamed_out_of_the_queue(house: House, alice: Control, target: str) -> None:
    alice.store(".in.x.img", JOB)
    alice.ask("RNFR .in.x.img")
    assert alice.ask(f"RNTO {target}")[:3] in ("553", "501", "550")
    assert house.keeps({".in.x.img": len(JOB)})


def test_connection_lost_during_the_verdict_on_a_rename_loses_nothing(house: House) -> None:
    for _ in range(3):
        with house.connect() as alice:
            alice.log_in().store("/queue/.in.x.img", JOB)
            alice.ask("RNFR /queue/.in.x.img")
            alice.send("RNTO /queue/x.img")
        wait_until(lambda: house.keeps({".in.x.img": len(JOB)}) or house.names("queue"), "kept, or a job")


def test_upload_that_comes_and_goes_has_a_size_or_has_none(house: House, alice: Control) -> None:
    alice.store("/queue/x.part", b"x" * 5000)
    (job,) = house.spool.jobs("incoming")
    is_over, gone = threading.Event(), job.path / "gone"

    def churn() -> None:
        while not is_over.is_set():
            job.upload.rename(gone)
            gone.rename(job.upload)

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        said = {alice.ask("SIZE /queue/x.part") for _ in range(3000)}
    finally:
        is_over.set()
        churning.join()
    assert said <= {"213 5000", "550 No such file or directory.", "550 /queue/x.part is not retrievable."}
    assert len(said) > 1, "it has come and gone"


def test_renaming_what_has_gone_is_refused_and_it_can_be_sent_again(house: House, alice: Control) -> None:
    alice.store("/queue/x.part", JOB)
    (job,) = house.spool.jobs("incoming")
    job.upload.unlink()
    assert alice.ask("RNFR /queue/x.part").startswith("350")
    assert alice.ask("RNTO /queue/x.img") == "550 x.part is not there any more."
    assert alice.store("/queue/x.part", JOB).startswith("226")
    alice.ask("RNFR /queue/x.part")
    assert alice.ask("RNTO /queue/x.img").startswith("250")


# -- what a contributor sees ---------------------------------------------------------------------------------------


def test_waiting_jobs_show_by_name_to_who_sent_them_and_by_id_to_others(house: House, alice: Control) -> None:
    ids = [alice.store("x.img", content).split()[4].rstrip(",") for content in (JOB, OTHER)]
    assert sorted(alice.fetch("NLST").decode().split()) == sorted(["x.img", ids[0]])
    assert alice.ask(f"SIZE {ids[1]}").startswith("213"), "it has its id too"
    with house.connect() as bob:
        assert sorted(bob.log_in("bob").fetch("NLST /queue").decode().split()) == sorted(ids)
        assert bob.ask("SIZE /queue/x.img").startswith("550")
        assert bob.ask(f"MDTM /queue/{ids[0]}").startswith("213 20")


def test_what_was_accepted_is_seen_in_its_session_whatever_becomes_of_it(house: House, alice: Control) -> None:
    alice.store("x.img", JOB)
    with house.spool.lock():
        job = house.spool.take()
        assert job is not None
        assert alice.ask("SIZE x.img") == f"213 {len(JOB)}"
        house.spool.finish(job, b"{}")
    assert alice.fetch("NLST") == b"x.img\r\n"
    assert b"type=file; x.img" in alice.fetch("MLSD")
    assert alice.ask("MLST x.img").startswith("250")
    with house.connect() as later:
        assert later.log_in().fetch("NLST /queue") == b""


def test_directory_made_in_the_queue_is_another_name_for_it(house: House, alice: Control) -> None:
    assert alice.ask("MKD jobs").startswith('257 "/queue/jobs"')
    assert alice.ask("MKD jobs").startswith("550")
    assert alice.ask("MKD jobs/more").startswith("257")
    assert alice.ask("CWD jobs").startswith("250")
    assert alice.store("more/x.img", JOB).startswith("226")
    assert alice.ask("SIZE x.img").startswith("213")
    assert sorted(alice.fetch("NLST").decode().split()) == ["more", "x.img"]
    assert alice.ask("SITE CHMOD 755 more").startswith("200")
    assert alice.ask("CWD /queue").startswith("250")
    assert b"type=dir; jobs" in alice.fetch("MLSD")
    assert alice.ask("RMD jobs/more").startswith("250")
    assert alice.ask("CWD jobs/more").startswith("550")
    with house.connect() as later:
        assert later.log_in().ask("CWD /queue/jobs").startswith("550")


def test_times_and_modes_are_answered_and_stay(house: House, alice: Control) -> None:
    alice.store("x.img", JOB)
    before = alice.ask("MDTM x.img")
    assert alice.ask("MFMT 19990101000000 x.img").startswith("213 Modify=19990101000000; x.img")
    assert alice.ask("SITE CHMOD 777 x.img").startswith("200")
    assert alice.ask("SITE UTIME 19990101000000 x.img").startswith("200")
    assert alice.ask("SITE UTIME x.img 19990101000000 19990101000000 19990101000000 UTC").startswith("200")
    assert alice.ask("MDTM x.img") == before
    assert "MFMT" not in alice.ask("FEAT")
    for command in ("MFMT 19990101000000 y.img", "SITE CHMOD 777 y.img", "SITE UTIME 19990101000000 y.img"):
        assert alice.ask(command).startswith("550")


# -- deleting ------------------------------------------------------------------------------------------------------


def test_deleting_what_is_not_complete_deletes_it(house: House, alice: Control) -> None:
    cut(alice, "x.img", JOB[:5000])
    alice.store("tmp.y.img", JOB)
    assert alice.ask("DELE x.img").startswith("250")
    assert alice.ask("DELE tmp.y.img").startswith("250")
    assert house.is_untouched()
    assert alice.ask("DELE x.img").startswith("550")


def test_deleting_a_waiting_job_asks_for_its_end_and_moves_nothing(house: House, alice: Control) -> None:
    job_id = alice.store("x.img", JOB).split()[4].rstrip(",")
    with house.spool.listen() as wake:
        assert alice.ask("DELE x.img") == f"250 Job {job_id} is cancelled; its result will be in /done/{job_id}/"
        assert wake.recv(16)
    (job,) = house.spool.jobs("queue")
    assert (job.id, job.is_cancelled()) == (job_id, True)
    assert alice.fetch("NLST") == b"", "for its contributor it is gone"
    assert alice.ask("DELE x.img").startswith("250"), "asking again does no harm"


@pytest.mark.parametrize("path", ["/queue/x.img", "/queue/{id}", "/running/{id}"])
@pytest.mark.parametrize("command", ["DELE", "RMD"])
def test_running_job_is_cancelled_by_its_contributor_only(house: House, path: str, command: str) -> None:
    if command == "RMD" and path.startswith("/queue"):
        pytest.skip("no directory")
    with house.connect() as alice:
        job_id = alice.log_in().store("/queue/x.img", JOB).split()[4].rstrip(",")
    with house.spool.lock():
        job = house.spool.take()
        assert job is not None
        for name in ("bob", "anonymous"):
            with house.connect() as other:
                assert other.log_in(name).ask(f"{command} {path.format(id=job_id)}").startswith("550")
        assert not job.is_cancelled()
        with house.connect() as alice:
            assert alice.log_in().ask(f"{command} {path.format(id=job_id)}").startswith("250")
        assert job.is_cancelled()


def test_finished_job_is_not_cancelled(house: House, alice: Control) -> None:
    job_id = alice.store("x.img", JOB).split()[4].rstrip(",")
    with house.spool.lock():
        job = house.spool.take()
        assert job is not None
        house.spool.finish(job, b"{}")
    assert alice.ask("DELE x.img").startswith(f"550 Job {job_id} has ended already")
    with house.connect() as bob:
        bob.log_in("bob")
        assert bob.ask(f"DELE /queue/{job_id}") == f"550 Job {job_id} has ended already; see /done/{job_id}/"
        assert bob.ask(f"DELE /queue/{job_id}x") == "550 No job of yours waits or runs by that name."
    assert sorted(path.name for path in (house.spool.state("done") / job_id).iterdir()) == ["job.json", "result.json"]


def test_nobody_touches_what_is_anothers(house: House, alice: Control) -> None:
    waiting = alice.store("x.img", JOB).split()[4].rstrip(",")
    alice.store("tmp.y.img", JOB)
    for name in ("bob", "anonymous"):
        with house.connect() as other:
            other.log_in(name)
            for path in ("x.img", waiting, "tmp.y.img"):
                assert other.ask(f"DELE /queue/{path}").startswith("550")
                assert other.ask(f"RNFR /queue/{path}").startswith("550")
                with other.passive():
                    assert other.ask(f"RETR /queue/{path}").startswith("550")
    assert not house.spool.jobs("queue")[0].is_cancelled()
    assert alice.ask("SIZE tmp.y.img") == f"213 {len(JOB)}"


def test_deleting_after_a_refusal_does_not_hit_an_older_job_of_the_same_name(house: House, alice: Control) -> None:
    assert alice.store("x.img", JOB).startswith("226")
    assert alice.store("x.img", b"no image\n").startswith("550")
    assert alice.ask("DELE x.img").startswith("250 Nothing was kept")
    assert not house.spool.jobs("queue")[0].is_cancelled()
    assert alice.ask("DELE x.img").startswith("250 Job ")
    assert house.spool.jobs("queue")[0].is_cancelled()


# -- lists of files ------------------------------------------------------------------------------------------------


def changes(*files: tuple[str, int]) -> bytes:
    lines = "".join(f" {'0' * 64} {size} {name}\n" for name, size in files)
    return f"Format: 1.8\nSource: x\nChecksums-Sha256:\n{lines}Description:\n x - y\n".encode()


def test_list_of_what_was_sent_is_compared_and_gone(house: House, alice: Control) -> None:
    assert alice.store("x.img", JOB).startswith("226")
    assert alice.store("x.changes", changes(("x.img", len(JOB)))).startswith("226 Accepted: ")
    assert alice.store("x.changes", changes(("x.img", 5))).startswith("550 Refused: x.img, which it names, ")
    reply = alice.store("x.changes", changes(("x.img", len(JOB)), ("y.img", 5)))
    assert reply.startswith("550 Refused: y.img, ")
    for nothing in (b"", b"\0" * 1000, b"Files:\n", JOB, changes(*[("x.img", len(JOB))] * 8000)):
        assert alice.store("x.changes", nothing).startswith("550 Refused: ")
    assert len(house.names("queue")) == 1
    assert house.names("incoming") == []
