"""site, notices, guide: whoever asks is told how things are and how to begin, by command and by file."""

import json
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.config import Config
from construir_ftp.errors import RefusedError
from construir_ftp.ftp.vfs import readme
from construir_ftp.jobs import inquiry, request
from construir_ftp.jobs.status import RunnerReport, RunningJob
from tests.support import images
from tests.support.contributor import PASSWORD
from tests.support.ftpclient import Control, House, serving, users_text, wait_until
from tests.support.tlsclient import tls_section

# What Debian gives to whoever is not root (login.defs(5), ENV_PATH).
_ORDINARY_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
JOB = images.image("ext2", 2**20)


def submit(house: House, name: str = "x.img") -> str:
    with house.connect() as alice:
        return alice.log_in().store(f"/queue/{name}", JOB).split()[4].rstrip(",")


def take(house: House) -> str:
    job = house.spool.take()
    assert job is not None
    job.count_attempt()
    return job.id


def told(anyone: Control) -> dict[str, object]:
    found: dict[str, object] = json.loads(anyone.fetch("RETR /status.json"))
    return found


def test_site_queue_tells_places_and_why_jobs_wait(house: House, anyone: Control) -> None:
    ids = [submit(house) for _ in range(2)]
    reply = anyone.ask("SITE QUEUE").splitlines()
    assert reply[0] == "211-2 waiting, 0 running:"
    assert [f" 1. {ids[0]}", f" 2. {ids[1]}"] == reply[1:3]
    assert " waiting because no runner is there to run jobs" in reply
    with house.spool.lock():
        inquiry.tell(
            house.spool, RunnerReport(slots=1, accelerator="tcg", busy=(RunningJob(ids[0], datetime.now(UTC)),))
        )
        take(house)
        wait_until(lambda: "211-1 waiting, 1 running:" in anyone.ask("SITE QUEUE"), "one runs")
        reply = anyone.ask("SITE QUEUE").splitlines()
        assert reply[1].startswith(f" running: {ids[0]} since 20")
        assert " waiting because every machine is busy (1 of 1)" in reply
        assert " machines: 1, tcg" in reply


def test_site_status_follows_a_job_to_its_end(house: House, anyone: Control) -> None:
    submit(house)
    job_id = submit(house, "y.img")
    assert anyone.ask(f"SITE STATUS {job_id}") == (
        f"211 {job_id} is waiting, number 2 in the queue; no runner is there to run jobs"
    )
    with house.spool.lock():
        take(house)
        assert take(house) == job_id
        assert anyone.ask(f"SITE STATUS {job_id}") == f"211 {job_id} is running; see /running/{job_id}/"
        result = {"status": "failed", "reason": "run.sh was not run: \r\n226 lies\x1b[2J", "exit_code": None}
        (running,) = (job for job in house.spool.jobs("running") if job.id == job_id)
        house.spool.finish(running, json.dumps(result).encode())
    reply = anyone.ask(f"site status {job_id}")
    assert reply == f"211 {job_id} is done: failed, run.sh was not run: ??226 lies?[2J; see /done/{job_id}/"
    for nothing in ("nothing", "../queue", "/etc/passwd", "*"):
        assert anyone.ask(f"SITE STATUS {nothing}") == "550 There is no such job."
    assert anyone.ask("SITE STATUS").startswith("501")


def test_site_status_knows_a_contributors_own_jobs_by_the_names_they_were_sent_by(
    house: House, anyone: Control
) -> None:
    first = submit(house, "mine.img")
    with house.connect() as alice, house.connect() as bob:
        alice.log_in()
        assert alice.ask("SITE STATUS mine.img").startswith(f"211 {first} is waiting")
        second = submit(house, "mine.img")
        assert alice.ask("SITE STATUS mine.img").startswith(f"211 {second} is waiting"), "the last of that name"
        with house.spool.lock():
            take(house), take(house)
            assert alice.ask("SITE STATUS mine.img").startswith(f"211 {second} is running")
        assert alice.ask(f"SITE STATUS {first}").startswith(f"211 {first} is running")
        for other in (anyone, bob.log_in("bob")):
            assert other.ask("SITE STATUS mine.img") == "550 There is no such job."


def test_site_commands_are_for_those_who_are_logged_in(house: House) -> None:
    with house.connect() as stranger:
        stranger.reply()
        for command in ("SITE HELP", "SITE QUEUE", "SITE STATUS x", "SITE CHMOD 777 x", "MFMT 1 x", "DELE x"):
            assert stranger.ask(command).startswith("530"), command


def test_help_and_readme_are_the_same(anyone: Control) -> None:
    guide = anyone.fetch("RETR /README.txt").decode()
    assert guide.startswith("This is Construir")
    assert [f" {line}" for line in guide.splitlines()] == anyone.ask("SITE HELP").splitlines()[1:-1]
    assert anyone.ask("SIZE /README.txt") == f"213 {len(guide)}"
    assert anyone.ask("MDTM /README.txt").startswith("213 20")


def test_status_file_is_up_to_date_at_every_read(house: House, anyone: Control) -> None:
    assert (told(anyone)["waiting"], told(anyone)["why"]) == (0, "")
    first, second = submit(house), submit(house, "y.img")
    # At every read, or, where finding out takes long, soon after.
    wait_until(lambda: told(anyone)["queue"] == [first, second], "both wait")
    assert told(anyone)["running"] == []
    with house.spool.lock():
        take(house)
        wait_until(lambda: told(anyone)["queue"] == [second], "one runs")
        assert told(anyone)["running"] == [{"job": first, "since": None}]
    assert told(anyone)["accepts_uploads"] is True


def test_size_that_is_told_is_the_size_that_is_sent(house: House, anyone: Control) -> None:
    size = int(anyone.ask("SIZE /status.json").split()[1])
    for number in range(3):
        submit(house, f"{number}.img")
    assert len(anyone.fetch("RETR /status.json")) == size
    wait_until(lambda: len(anyone.fetch("RETR /status.json")) > size, "for one download only")


def test_running_job_has_a_status_of_its_own(house: House, anyone: Control) -> None:
    job_id = submit(house)
    with house.spool.lock():
        take(house)
        assert b"status.json" in anyone.fetch(f"NLST /running/{job_id}")
        now = json.loads(anyone.fetch(f"RETR /running/{job_id}/status.json"))
        assert (now["id"], now["state"], now["attempt"]) == (job_id, "running", 1)
    with anyone.passive():
        for path in ("/running/nothing/status.json", "/queue/status.json", "/done/status.json", "/running/status.json"):
            assert anyone.ask(f"RETR {path}").startswith("550"), path


def test_status_of_a_long_queue_is_found_out_once_for_many_readers(house: House, anyone: Control) -> None:
    for number in range(5000):
        (house.spool.state("queue") / f"20261122T120000Z-0000-{number:05}").mkdir()
    notices = house.listener.notices
    assert notices.summary() is notices.summary(), "what took long to find out is told again"
    assert told(anyone)["waiting"] == 5000
    assert len(anyone.ask("SITE QUEUE").splitlines()) < 60


def test_curl_and_wget_read_the_status(house: House, tmp_path: Path) -> None:
    submit(house)
    for argv in (["curl", "-sS", "-o"], ["wget", "-q", "-O"]):
        target = tmp_path / argv[0]
        subprocess.run([*argv, target, house.url("/status.json")], check=True, timeout=30)
        assert json.loads(target.read_bytes())["waiting"] == 1


def typed(guide: str, title: str) -> list[str]:
    """What a newcomer types of the guide's section with that title."""
    section = guide.partition(f"\n{title} ")[2]
    return [line.strip() for line in section.partition("What is cut")[0].splitlines() if line.startswith("    ")]


def as_newcomer(script: str, home: Path, certificate: Path | None) -> "subprocess.CompletedProcess[str]":
    """Type a script, and the password where it is asked for; a certificate is trusted by curl, lftp and construir."""
    trusted = {"CURL_CA_BUNDLE": str(certificate), "CONSTRUIR_CAFILE": str(certificate)} if certificate else {}
    (home / ".netrc").write_text(f"machine localhost login alice password {PASSWORD}\n")
    (home / ".netrc").chmod(0o600)
    (home / ".lftprc").write_text(f"set ssl:ca-file {certificate}\n" if certificate else "")
    env = process.environment(
        HOME=str(home),
        PATH=f"{Path(sys.executable).parent}:{_ORDINARY_PATH}",
        **trusted,
    )
    argv = ["bash", "-euc", script]
    return subprocess.run(
        argv,
        cwd=home,
        env=env,
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )


@pytest.mark.parametrize("is_strict", [False, True], ids=["in clear", "over TLS only"])
@pytest.mark.parametrize("client", ["curl", "lftp", "construir"])
def test_newcomer_who_does_what_the_guide_says_has_a_job(
    tmp_path: Path, certificate_files: tuple[Path, Path], client: str, is_strict: bool
) -> None:
    tls = tls_section(certificate_files, require_tls=True) if is_strict else None
    with serving(tmp_path / "house", tls=tls) as house:
        house.users.path.write_text(users_text("alice", password=PASSWORD))
        with house.connect() as anyone:
            guide = anyone.log_in("anonymous").fetch("RETR /README.txt").decode()
        make, send = typed(guide.partition("\nSEND IT")[0], "MAKE A JOB."), typed(guide, "SEND IT")
        (line,) = [line for line in send if line.split()[0] == client]
        line = line.replace("NAME", "alice").replace("SERVER", "localhost")
        script = "\n".join([*make[: 4 if client == "construir" else 3], line])
        said = as_newcomer(script, tmp_path, certificate_files[0] if is_strict else None)
        assert said.returncode == 0, (script, said.stdout, said.stderr)
        (job,) = house.spool.jobs("queue")
        assert (job.record().contributor, job.record().codec) == ("alice", "zstd")
        assert job.id in said.stdout + said.stderr, "the verdict is seen"
        (tmp_path / "hello.img.zst").write_bytes(b"no image")
        refused = as_newcomer(line, tmp_path, certificate_files[0] if is_strict else None)
        assert "Refused: not a file system image" in refused.stdout + refused.stderr, "so is a refusal's reason"


def test_guide_names_no_port_where_it_is_that_of_ftp() -> None:
    assert "ftp://SERVER/queue/\n" in readme.text(Config(), 21)
    assert "ftp://SERVER:2121/queue/\n" in readme.text(Config(), 2121)


def test_guide_lists_every_key_that_a_job_can_have() -> None:
    text = readme.text(Config(), 21)
    assert max(len(line) for line in text.splitlines()) <= 100
    listed = {line.split(" = ")[0].strip() for line in text.splitlines() if re.match(r"  \w+ = ", line)}
    assert listed == {key.name for key in request.KEYS}
    with pytest.raises(
        RefusedError,
        match=r"no such key \(did you mean timeout\?\); construir.toml\(5\), or the server's /README.txt, lists",
    ):
        request.read("tiemout = 1")


@pytest.mark.parametrize("words", ["2 GiB", "16 GiB", "2 hours", "30 minutes", "30 days", "ext2, ext3 or ext4"])
def test_guide_names_the_limits_that_are_configured(words: str) -> None:
    assert words in readme.text(Config(), 21)


def test_replies_of_several_lines_can_not_be_mistaken_for_their_end(house: House, anyone: Control) -> None:
    with socket.create_connection(house.server.address, 30) as raw, raw.makefile("rb") as lines:
        raw.sendall(b"USER anonymous\r\nPASS x\r\nSITE HELP\r\nQUIT\r\n")
        said = [line.decode() for line in lines]
    begun = next(number for number, line in enumerate(said) if line.startswith("214-"))
    ended = next(number for number, line in enumerate(said) if line.startswith("214 "))
    assert all(line.startswith(" ") for line in said[begun + 1 : ended])
    assert said[ended + 1].startswith("221")
