"""view: who sees what. Asked by real clients of a real server."""

import ftplib
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from construir_ftp.ftp.vfs.queue_dir import Queue
from construir_ftp.ftp.vfs.view import View
from construir_ftp.ftp.vfs.virtual_files import Notices
from construir_ftp.jobs import inquiry
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import RunnerReport, RunningJob
from tests.support import images
from tests.support.ftpclient import LONG_S, Control, House, serving, wait_until

JOB = images.image("ext2", 2**20)
SECRET = b"a secret of the host\n"
_NOT_THERE = "No such file or directory"
_NOT_FOR_ANYONE = "Only contributors send jobs"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A server with one result, one waiting job of alice's, and a file beside the spool that nobody may see."""
    (tmp_path / "secret").write_bytes(SECRET)
    with serving(tmp_path) as house:
        house.publish("a-job", {"output.log": b"hello\n" * 1000, "result.json": b"{}"})
        with house.connect() as alice:
            assert alice.log_in().store("/queue/wait.img", JOB).startswith("226")
        yield house


def test_anonymous_users_see_done_and_live_logs_and_nothing_else(anyone: Control) -> None:
    assert anyone.fetch("NLST") == b"README.txt\r\ndone\r\nlayers\r\nrunning\r\nstatus.json\r\n"
    assert anyone.fetch("NLST /done") == b"a-job\r\n"
    assert sorted(anyone.fetch("NLST /done/a-job").split()) == [b"output.log", b"result.json"]
    listing = anyone.fetch("LIST /").decode().splitlines()
    assert [line.split()[-1] for line in listing] == ["README.txt", "done", "layers", "running", "status.json"]


def test_who_looks_too_early_or_too_late_is_told_where_the_job_is(house: House, anyone: Control) -> None:
    (waiting,) = house.names("queue")
    for path in (f"/done/{waiting}", f"/running/{waiting}", f"/running/{waiting}/output.log"):
        assert asked(anyone, path) == {f"Job {waiting} still waits; why, says SITE STATUS {waiting}, or /status.json."}
    job = house.spool.take()
    assert job is not None
    there = f"see /running/{job.id}/output.log, its result will be in /done/{job.id}/."
    assert asked(anyone, f"/done/{job.id}") == {f"Job {job.id} has not ended; {there}"}
    with house.spool.lock():
        busy = RunningJob(job.id, None, "its Debian packages are being installed")
        inquiry.tell(house.spool, RunnerReport(slots=1, busy=(busy,)))
        log = f"/running/{job.id}/output.log"
        status = f"/running/{job.id}/status.json."
        assert asked(anyone, log) == {
            f"Job {job.id} has printed nothing yet: its Debian packages are being installed; see {status}"
        }
    house.spool.finish(job, b"{}")
    for path in (f"/running/{job.id}", f"/running/{job.id}/output.log"):
        assert asked(anyone, path) == {f"Job {job.id} has ended; see /done/{job.id}/."}
    for path in ("/done/nothing", "/running/nothing", "/done/nothing/output.log"):
        assert asked(anyone, path) == {"No such file or directory."}
    nothing = f"No such file or directory in the result of job {job.id}; what there is: /done/{job.id}/."
    assert asked(anyone, f"/done/{job.id}/nothing") == {nothing}


def test_directory_that_is_asked_for_as_a_file_is_told_how_it_is_listed(anyone: Control) -> None:
    with anyone.passive():
        for path in ("/done/a-job", "/done", "/layers"):
            said = anyone.ask(f"RETR {path}")
            assert said == "550 Not a file, but a directory: it is listed, by curl with a / at the end of its name."


def test_anonymous_users_are_told_who_sees_the_queue_and_where_it_is_told_to_anyone(anyone: Control) -> None:
    told = "Only contributors send jobs; log in as one. What waits is told to anyone by SITE QUEUE, or /status.json."
    for path in ("/queue", "/queue/wait.img", "/queue/x/y"):
        said = [anyone.ask(f"{command} {path}") for command in ("CWD", "STAT")]
        with anyone.passive():
            said += [anyone.ask(f"{command} {path}") for command in ("LIST", "NLST", "MLSD")]
        assert {reply[4:] for reply in said} == {told}


def test_whoever_looks_in_the_wrong_place_is_told_the_right_one(anyone: Control, alice: Control) -> None:
    for path in ("/Queue", "/home/nina", "/x.img", "/result/x"):
        assert asked(anyone, path) == {"No such file or directory; jobs go into /queue, results into /done."}
    told = {"No such file or directory; jobs go into /queue itself, as /queue/NAME."}
    assert {alice.ask("CWD /queue/home/nina")[4:], alice.ask("CWD /queue/home")[4:]} == told
    assert alice.ask("SITE NOPE x") == (
        '500 Command "SITE NOPE" not understood; there are SITE QUEUE, SITE STATUS ID, SITE HELP.'
    )


def asked(control: Control, path: str) -> set[str]:
    """All that is said of a path that isn't there, whatever is asked of it."""
    said = [control.ask(f"{command} {path}") for command in ("CWD", "STAT")]
    with control.passive():
        said += [control.ask(f"{command} {path}") for command in ("RETR", "LIST", "NLST", "MLSD")]
    assert all(reply.startswith(("550 ", "501 ")) for reply in said), said
    return {reply[4:] for reply in said}


def test_layers_are_for_everyone_and_drafts_for_nobody(house: House, anyone: Control, alice: Control) -> None:
    layers = house.spool.state("layers")
    for name in ("ghc@0123456789ab", ".draft-x", ".archives"):
        (layers / name).mkdir()
        (layers / name / "layer.json").write_bytes(b"{}")
    (layers / ".lock-ghc").write_bytes(b"")
    for control in (anyone, alice):
        assert control.fetch("NLST /layers") == b"ghc@0123456789ab\r\n"
        assert control.fetch("RETR /layers/ghc@0123456789ab/layer.json") == b"{}"
        for path in (".draft-x/layer.json", ".lock-ghc", "ghc@0123456789ab/../.archives/layer.json"):
            assert control.ask(f"SIZE /layers/{path}").startswith("550"), path
    with alice.passive():
        assert alice.ask("STOR /layers/new").startswith("553")
    assert alice.ask("DELE /layers/ghc@0123456789ab/layer.json").startswith("55")


@pytest.mark.parametrize("name", ["anonymous", "ftp", "FTP", "Anonymous"])
def test_anyone_gets_in_by_the_usual_names(house: House, name: str) -> None:
    with house.client(name, "somebody@example.org") as client:
        assert client.nlst("/") == ["README.txt", "done", "layers", "running", "status.json"]


@pytest.mark.parametrize(
    "path",
    [
        "/queue",
        "/queue/{waiting}",
        "/queue/{waiting}/upload",
        "/incoming",
        "/trash",
        "/layers",
        "/lock",
        "/users.toml",
        "/done/../users.toml",
        "/../secret",
        "/../../../../etc/passwd",
        "../users.toml",
        "users.toml",
        "/done/../../secret",
        "/done/a-job/../../users.toml",
        "/done/.",
        "/done/a-job/..",
        "//users.toml",
        "/done//../queue",
        "{spool}/users.toml",
        "~/x",
        "/done/a-job/output.log/../../../users.toml",
        "/proc/self/environ",
        "/done/a\0b",
        "/done/" + "a" * 300,
        "/done/\udcff",
    ],
)
def test_nobody_reads_anything_but_results(house: House, path: str) -> None:
    (waiting,) = house.names("queue")
    path = path.format(spool=house.spool.path, waiting=waiting)
    for name in ("anonymous", "alice"):
        with house.connect() as control, control.log_in(name).passive():
            for command in ("RETR", "SIZE" if name == "anonymous" else "RETR"):
                reply = control.ask(f"{command} {path}".encode(errors="surrogateescape"))
                assert reply.startswith(("550", "501")), reply
                assert str(house.spool.path) not in reply.replace(path, "")
            assert control.ask("NOOP").startswith("200")


def test_working_directory_never_leaves_what_is_shown(anyone: Control, house: House) -> None:
    for path in ("/queue", "..", "../..", "/done/../queue", "/etc", str(house.spool.path), "/done/a-job/output.log"):
        anyone.ask(f"CWD {path}")
        assert anyone.ask("PWD").startswith('257 "/"'), path
    assert anyone.ask("CWD done").startswith("250")
    assert anyone.ask("CWD a-job").startswith("250")
    assert anyone.ask("PWD").startswith('257 "/done/a-job"')
    assert anyone.fetch("RETR output.log") == b"hello\n" * 1000
    assert anyone.ask("CDUP").startswith("250")
    assert anyone.fetch("NLST") == b"a-job\r\n"
    assert anyone.ask("CWD ../../../..").startswith("250")
    assert anyone.fetch("NLST") == b"README.txt\r\ndone\r\nlayers\r\nrunning\r\nstatus.json\r\n"


def test_what_is_neither_file_nor_directory_is_not_there(house: House, anyone: Control, tmp_path: Path) -> None:
    result = house.spool.state("done") / "a-job"
    (result / "link").symlink_to(tmp_path / "secret")
    (result / "inside").symlink_to("output.log")
    (house.spool.state("done") / "root").symlink_to("/")
    (house.spool.state("done") / "self").symlink_to(".")
    (result / ".hidden").write_bytes(SECRET)
    os.mkfifo(result / "pipe")
    assert anyone.fetch("NLST /done") == b"a-job\r\n"
    for listing in ("NLST", "LIST", "MLSD"):
        lines = anyone.fetch(f"{listing} /done/a-job").splitlines()
        assert sorted(line.split()[-1] for line in lines) == [b"output.log", b"result.json"]
    with anyone.passive():
        for path in (
            "a-job/link",
            "a-job/inside",
            "a-job/.hidden",
            "a-job/pipe",
            "root/etc/passwd",
            "self/a-job/output.log",
        ):
            for command in ("RETR", "SIZE", "MDTM", "CWD", "MLST"):
                assert anyone.ask(f"{command} /done/{path}").startswith("550"), (command, path)


def test_listing_of_a_long_queue_looks_at_each_job_when_its_line_is_due(house: House, alice: Control) -> None:
    """Were all of them looked at before the first line, thousands would keep the loop from all others."""
    (waiting,) = house.names("queue")
    record = (house.spool.state("queue") / waiting / "job.json").read_bytes()
    others = {f"20200101T000000Z-{number:06x}-other" for number in range(300)}
    for name in others:
        (house.spool.state("queue") / name).mkdir()
        (house.spool.state("queue") / name / "job.json").write_bytes(record.replace(b'"alice"', b'"carol"'))
    assert set(alice.fetch("NLST /queue").decode().split()) == {"wait.img", *others}
    assert alice.store("/queue/more.img", JOB).startswith("226")
    (more,) = {*house.names("queue")} - {waiting, *others}
    entries = Queue(house.spool, house.listener.intake.partials, "alice").entries("/queue")
    assert next(entries)[0] == "wait.img"
    (house.spool.state("queue") / more / "cancel").touch()
    assert {name for name, _ in entries} == others


def test_contributor_sees_waiting_jobs_but_reads_none(house: House, alice: Control) -> None:
    (waiting,) = house.names("queue")
    assert alice.fetch("NLST").split() == [b"README.txt", b"done", b"layers", b"queue", b"running", b"status.json"]
    assert alice.fetch("NLST /queue") == b"wait.img\r\n"
    line = alice.fetch("LIST /queue").decode().split()
    assert (line[4], line[-1]) == (str(len(JOB)), "wait.img")
    assert f"size={len(JOB)};".encode() in alice.fetch("MLSD /queue")
    for name in ("wait.img", waiting):
        assert alice.ask(f"SIZE /queue/{name}") == f"213 {len(JOB)}"
        assert alice.ask(f"CWD /queue/{name}").startswith("550")
        with alice.passive():
            assert alice.ask(f"RETR /queue/{name}").startswith("550 A waiting job is not given out")


def test_result_is_fetched_whole_and_from_any_offset(anyone: Control) -> None:
    content = b"hello\n" * 1000
    assert anyone.fetch("RETR /done/a-job/output.log") == content
    assert anyone.ask("SIZE /done/a-job/output.log") == f"213 {len(content)}"
    assert anyone.ask("MDTM /done/a-job/output.log").startswith("213 20")
    assert anyone.ask("REST 5990").startswith("350")
    assert anyone.fetch("RETR /done/a-job/output.log") == content[5990:]
    assert anyone.ask("REST 7000").startswith("350")
    with anyone.passive():
        assert anyone.ask("RETR /done/a-job/output.log").startswith("554")


def test_listings_tell_nothing_of_the_host(house: House, anyone: Control) -> None:
    assert anyone.ask("OPTS MLST type;size;unix.mode;unix.uid;unix.gid;unique;perm;").startswith("200")
    assert (
        anyone.fetch("MLSD /done/a-job").splitlines()[0].startswith((b"size=6000;type=file; ", b"size=2;type=file; "))
    )
    assert anyone.fetch("LIST /done").decode().split()[2:4] == ["construir", "construir"]
    for reply in ("FEAT", "SYST", "HELP", "STAT", "STAT /done/a-job", "MLST /done/a-job", "PWD", "RETR /nothing"):
        assert str(house.spool.path) not in anyone.ask(reply)
    assert "unix" not in anyone.ask("FEAT")


def test_listing_survives_entries_that_vanish_meanwhile(house: House, anyone: Control) -> None:
    done = house.spool.state("done")
    for number in range(20_000):
        (done / f"job{number:05}-{'x' * 60}").mkdir()
    for command in ("MLSD /done", "LIST /done"):
        with anyone.passive() as data, data.makefile("rb") as lines:
            there = list(done.iterdir())
            assert anyone.ask(command).startswith(("125", "150"))
            # Read no more than shows that it has begun: most of it is listed after these are gone.
            assert lines.readline().endswith(b"\r\n")
            for path in sorted(there)[-5_000:]:
                shutil.rmtree(path)
            rest = list(lines)
        assert anyone.reply().startswith("226")
        assert all(line.endswith(b"\r\n") for line in rest)
        assert len(rest) + 1 < len(there), "some had vanished before their turn"


def test_anonymous_users_upload_nothing(house: House, anyone: Control) -> None:
    with anyone.passive():
        for path in ("/queue/x.img", "x.img", "/done/x.img", "/done/a-job/output.log"):
            assert anyone.ask(f"STOR {path}").startswith("550 Refused: "), path
    assert house.names("incoming") == []
    assert (house.spool.state("done") / "a-job" / "output.log").read_bytes() == b"hello\n" * 1000


def test_contributor_overwrites_nothing(house: House, alice: Control) -> None:
    (waiting,) = house.names("queue")
    with alice.passive():
        for path in ("/done/a-job/output.log", f"/queue/{waiting}/upload", f"/queue/{waiting}/job.json", "/users.toml"):
            assert alice.ask(f"STOR {path}").startswith("553 Refused: "), path
    # Its own name is as good as any: a job of its own.
    assert alice.store(f"/queue/{waiting}", JOB).startswith("226")
    assert len(house.names("queue")) == 2
    assert (house.spool.state("queue") / waiting / "upload").read_bytes() == JOB


def test_download_can_be_aborted_and_the_session_goes_on(house: House, anyone: Control) -> None:
    (house.spool.state("done") / "a-job" / "big.img").write_bytes(bytes(64 * 2**20))
    with anyone.passive() as data:
        assert anyone.ask("RETR /done/a-job/big.img").startswith(("125", "150"))
        assert data.recv(1000)
        assert anyone.ask("ABOR").startswith("426")
        assert anyone.reply().startswith("226")
    assert anyone.fetch("RETR /done/a-job/result.json") == b"{}"


@pytest.mark.parametrize("client", ["curl", "wget", "lftp"])
def test_real_clients_fetch_results_without_logging_in(house: House, client: str, tmp_path: Path) -> None:
    url = house.url("/done/a-job/")
    argv = {
        "curl": ["curl", "-sS", "-o", "#1", f"{url}{{output.log,result.json}}"],
        "wget": ["wget", "-q", "-r", "-nH", "--cut-dirs=2", url],
        "lftp": ["lftp", "-c", f"set net:max-retries 1; mirror {url} ."],
    }[client]
    (tmp_path / "fetched").mkdir()
    subprocess.run(argv, cwd=tmp_path / "fetched", timeout=LONG_S, check=True)
    assert (tmp_path / "fetched" / "output.log").read_bytes() == b"hello\n" * 1000
    assert (tmp_path / "fetched" / "result.json").read_bytes() == b"{}"


def test_curl_resumes_a_download(house: House, tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(b"hello\nhel")
    url = house.url("/done/a-job/output.log")
    subprocess.run(["curl", "-sS", "-C", "-", "-O", url], cwd=tmp_path, timeout=LONG_S, check=True)
    assert (tmp_path / "output.log").read_bytes() == b"hello\n" * 1000


def test_text_is_sent_as_text_in_ascii_mode(house: House) -> None:
    with house.client("anonymous") as client:
        lines: list[str] = []
        client.retrlines("RETR /done/a-job/output.log", lines.append)
        assert lines == ["hello"] * 1000
        received = io.BytesIO()
        client.retrbinary("RETR /done/a-job/output.log", received.write)
        assert received.getvalue() == b"hello\n" * 1000
        with pytest.raises(ftplib.error_perm):
            client.cwd("/queue")


def test_downloads_of_many_leave_nothing_open(house: House) -> None:
    clients = [house.client("anonymous") for _ in range(20)]
    connections = [client.transfercmd("RETR /done/a-job/output.log") for client in clients]
    for connection, client in zip(connections, clients, strict=True):
        connection.close()
        client.close()
    wait_until(house.is_quiet, "every session is forgotten")


class _Channel:
    """What a View wants of a session to make a listing."""

    encoding, unicode_errors, use_gmt_times = "utf8", "replace", True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    parts=st.lists(
        st.sampled_from(["done", "queue", "running", "a-job", "..", ".", "", "link", "out", "users.toml", "etc"])
        | st.text(max_size=3)
    ),
    directory=st.sampled_from(["/", "/done", "/done/a-job"]),
)
def test_no_path_leads_out_of_what_is_shown(tmp_path: Path, parts: list[str], directory: str) -> None:
    spool = Spool.prepare(tmp_path / "spool")
    result = spool.state("done") / "a-job"
    if not result.exists():
        (spool.path / "users.toml").write_bytes(SECRET)
        (tmp_path / "users.toml").write_bytes(SECRET)
        result.mkdir()
        (result / "out").write_bytes(b"hello")
        (result / "link").symlink_to(spool.path)
    view = View(spool, None, Notices(spool, 0, "read me"), _Channel())
    view.chdir(directory)
    path = view.ftp2fs("/".join(parts))
    if "\0" in path:
        return  # a session never gets that far
    try:
        with view.open(path, "rb") as file:
            assert file.read() == b"hello"
            assert path == "/done/a-job/out"
    except (OSError, UnicodeEncodeError):
        assert path != "/done/a-job/out"
    except Exception as error:  # noqa: BLE001 - pyftpdlib's own kind
        said = str(error).partition(":")[0].partition(";")[0]
        in_words = {"Not a file", "Not a file, but a directory", "A waiting job is not given out", _NOT_FOR_ANYONE}
        assert said in in_words or said.startswith(_NOT_THERE)
