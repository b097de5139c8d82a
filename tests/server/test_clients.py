"""The FTP clients people have, as they are, by the command lines that README gives them.

FileZilla and WinSCP are in test_client_habits, TLS in test_tls_clients.
"""

import ftplib
import io
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support import images
from tests.support.contributor import CHANGES, FILE, MIB, NAME, PASSWORD, Contributor, command_lines, large_job
from tests.support.ftpclient import House
from tests.support.places import PROJECT

JOB = images.pack("zstd", images.claiming(images.image("ext2", MIB), 2 * MIB)[:MIB] + images.noise(MIB))
CLIENTS = ("curl", "lftp", "tnftp", "ncftpput", "rclone", "dput", "dupload")
# What those that don't show replies say when all went well.
SHOWN = {"rclone": f"{FILE}: Copied (new)", "dput": "Successfully uploaded", "dupload": f"{CHANGES} 0."}


@pytest.fixture
def alice(house: House, tmp_path: Path) -> Contributor:
    contributor = Contributor(house, tmp_path)
    contributor.lay_out(JOB)
    return contributor


def only_job(house: House) -> tuple[str, bytes]:
    """The id and the bytes of the only job, which must be alice's, and all there is."""
    (job,) = house.spool.jobs("queue")
    assert (job.record().contributor, job.record().filename) == (NAME, FILE)
    assert house.names("incoming") == []
    return job.id, job.upload.read_bytes()


def test_readme_has_a_command_line_for_every_client_of_these_tests() -> None:
    assert tuple(command_lines()) == CLIENTS
    programs = (*CLIENTS, "wget", "ncftpget")
    assert [name for name in programs if not shutil.which(name)] == [], "see deploy/packages-tests"


# -- sending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_job_is_sent_and_seen_to_be_accepted(house: House, alice: Contributor, client: str) -> None:
    status, said = alice.run(command_lines()[client][0])
    assert status == 0, said
    job_id, content = only_job(house)
    assert content == JOB
    assert SHOWN.get(client, f"Accepted as job {job_id}, number 1 in the queue; its result will be in /done/") in said


@pytest.mark.parametrize("client", CLIENTS)
def test_reason_of_a_refusal_is_seen(house: House, alice: Contributor, client: str) -> None:
    alice.lay_out(b"no image\n")
    status, said = alice.run(command_lines()[client][0])
    assert status != 0, said
    assert "Refused: not a file system image" in said
    assert house.is_untouched()


def test_dput_is_told_at_its_end_what_it_took_for_there_already(house: House, alice: Contributor) -> None:
    alice.lay_out(JOB, "greet:1.img.zst")
    status, said = alice.run(command_lines()["dput"][0])
    assert "Leaving existing greet:1.img.zst on the server and continuing" in said
    assert "550 Refused: greet:1.img.zst, which it names, was not accepted in this session" in said
    assert status != 0
    assert house.is_untouched()


def test_dput_ng_has_no_password_to_say_and_is_told_so(house: House, alice: Contributor) -> None:
    # Its defaults, which are in a package that can't be installed beside dput.
    for path, content in {
        "schemas/config.json": {},
        "schemas/plugin.json": {},
        "uploaders/ftp.json": {"description": "", "path": "dput.uploaders.ftp.FtpUploader"},
        "interfaces/cli.json": {"description": "", "path": "dput.interfaces.cli.CLInterface"},
        "profiles/DEFAULT.json": {"full_upload_log": False, "interface": "cli", "passive_ftp": True},
    }.items():
        (alice.desk / "skel" / path).parent.mkdir(parents=True, exist_ok=True)
        (alice.desk / "skel" / path).write_text(json.dumps(content))
    program = f"from dput.uploader import invoke_dput_simple as dput; dput('{CHANGES}', 'construir')"
    for login, reason in ((NAME, "530 Wrong name or password"), ("anonymous", "550 Only contributors send jobs")):
        dput_cf = alice.home / ".dput.cf"
        dput_cf.write_text(dput_cf.read_text().replace(f"login = {NAME}", f"login = {login}"))
        status, said = alice.run(f'/usr/bin/python3 -c "{program}"')
        assert status != 0
        assert reason in said
    assert house.is_untouched()


# -- continuing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["curl", "lftp"])
def test_cut_job_is_continued_where_it_was_cut(
    house: House, alice: Contributor, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "construir.ftp")
    alice.lay_out(large_job())
    sends, continues = command_lines()[client]
    kept = alice.cut(sends)[FILE]
    assert house.names("queue") == []
    status, said = alice.run(continues)
    assert status == 0, said
    job_id, content = only_job(house)
    assert content == large_job()
    assert f"Accepted as job {job_id}" in said
    assert f"from byte {kept}" in caplog.text


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_tnftp_continues_at_the_size_it_asks_for(house: House, alice: Contributor, how: signal.Signals) -> None:
    alice.lay_out(large_job())
    kept = alice.cut(command_lines()["tnftp"][0], how)[FILE]
    status, said = alice.run("tnftp -v -P 2121 server", f"binary\ncd queue\nsize {FILE}\nrestart {kept}\nput {FILE}\n")
    assert status == 0, said
    assert f"{kept}" in said
    job_id, content = only_job(house)
    assert f"Accepted as job {job_id}" in said
    assert content == large_job()


def test_ftplib_continues(house: House, alice: Contributor) -> None:
    alice.lay_out(large_job())
    kept = alice.cut(command_lines()["curl"][0])[FILE]
    with house.client(NAME, PASSWORD) as client:
        assert client.size(f"queue/{FILE}") == kept
        rest = io.BytesIO(large_job()[kept:])
        assert client.storbinary(f"STOR queue/{FILE}", rest, rest=kept).startswith("226 Accepted")
    assert only_job(house)[1] == large_job()


@pytest.mark.parametrize("client", ["rclone", "dput", "dupload"])
def test_what_cannot_be_continued_is_sent_again(house: House, alice: Contributor, client: str) -> None:
    alice.lay_out(large_job())
    sends, continues = command_lines()[client]
    assert not continues
    alice.cut(sends)
    status, said = alice.run(sends)
    assert status == 0, said
    assert only_job(house)[1] == large_job()


def test_ncftpput_continues_with_the_wrong_bytes_and_is_refused_and_then_sends_it_again(
    house: House, alice: Contributor
) -> None:
    alice.lay_out(large_job())
    sends = command_lines()["ncftpput"][0]
    alice.cut(sends)
    continues = sends.replace("-P", "-z -P")
    status, said = alice.run(continues)
    assert (status != 0, "Refused: " in said) == (True, True), said
    assert house.is_untouched()
    status, said = alice.run(continues)
    assert status == 0, said
    assert only_job(house)[1] == large_job()


@pytest.mark.parametrize("client", ["curl", "lftp"])
def test_job_that_waits_is_not_sent_again_to_be_continued(house: House, alice: Contributor, client: str) -> None:
    sends, continues = command_lines()[client]
    for line in (sends, continues):
        status, said = alice.run(line)
        assert status == 0, said
    assert only_job(house)[1] == JOB


# -- temporary names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "temporary"),
    [
        (
            "lftp -e 'set xfer:use-temp-file true; put -c -O queue greet.img.zst; exit' -p 2121 alice@server",
            f".in.{FILE}",
        ),
        ("ncftpput -T tmp. -f login.cfg -P 2121 queue greet.img.zst", f"tmp.{FILE}"),
        ("ncftpput -S .tmp -f login.cfg -P 2121 queue greet.img.zst", f"{FILE}.tmp"),
    ],
    ids=["lftp", "ncftpput -T", "ncftpput -S"],
)
def test_temporary_name_starts_nothing_until_the_client_renames_it(
    house: House, alice: Contributor, line: str, temporary: str
) -> None:
    alice.lay_out(large_job())
    assert list(alice.cut(line)) == [temporary]
    assert house.names("queue") == []
    status, said = alice.run(line)
    assert status == 0, said
    assert only_job(house)[1] == large_job()


# -- directories -----------------------------------------------------------------------------------------------------


def test_lftp_mirrors_a_directory_of_jobs_into_the_queue_once(house: House, alice: Contributor) -> None:
    jobs = alice.desk / "jobs"
    jobs.mkdir()
    for number in range(3):
        (jobs / f"{number}.img").write_bytes(images.image("ext2", MIB, "-L", str(number)))
    for _ in range(2):
        status, said = alice.run("lftp -e 'mirror -R jobs queue; exit' -p 2121 alice@server")
        assert status == 0, said
        sent = {job.record().filename: job.upload.read_bytes() for job in house.spool.jobs("queue")}
        assert sent == {path.name: path.read_bytes() for path in jobs.iterdir()}
        assert len(house.names("queue")) == 3, "those that wait are seen, and not sent again"


def test_lftp_continues_to_mirror(house: House, alice: Contributor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "construir.ftp")
    (alice.desk / "jobs").mkdir()
    (alice.desk / "jobs" / FILE).write_bytes(large_job())
    # It continues what is newer than the file it comes from.
    os.utime(alice.desk / "jobs" / FILE, (0, 0))
    kept = alice.cut("lftp -e 'mirror -R jobs queue; exit' -p 2121 alice@server")[FILE]
    status, said = alice.run("lftp -e 'mirror -R -c jobs queue; exit' -p 2121 alice@server")
    assert status == 0, said
    assert only_job(house)[1] == large_job()
    assert f"from byte {kept}" in caplog.text


def test_lftp_makes_the_directories_it_mirrors(house: House, alice: Contributor) -> None:
    (alice.desk / "jobs" / "sub").mkdir(parents=True)
    (alice.desk / "jobs" / "sub" / FILE).write_bytes(JOB)
    status, said = alice.run("lftp -e 'mirror -R jobs queue; exit' -p 2121 alice@server")
    assert status == 0, said
    assert only_job(house)[1] == JOB


# -- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "curl -nsS -Q 'DELE queue/greet.img.zst' ftp://server:2121/",
        "lftp -e 'rm queue/greet.img.zst; exit' -p 2121 alice@server",
        "rclone deletefile :ftp,host=server,port=2121,user=alice:queue/greet.img.zst",
    ],
    ids=["curl", "lftp", "rclone"],
)
def test_deleting_a_waiting_job_cancels_it(house: House, alice: Contributor, line: str) -> None:
    with house.client(NAME, PASSWORD) as client:
        client.storbinary(f"STOR queue/{FILE}", io.BytesIO(JOB))
    status, said = alice.run(line)
    assert status == 0, said
    (job,) = house.spool.jobs("queue")
    assert job.is_cancelled()


# -- fetching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ncftpget -P 2121 server . /done/a-job/output.log /done/a-job/big",
        "tnftp -V ftp://server:2121/done/a-job/output.log ftp://server:2121/done/a-job/big",
        "rclone copy :ftp,host=server,port=2121,user=anonymous:done/a-job .",
        "wget -q -c ftp://server:2121/done/a-job/output.log ftp://server:2121/done/a-job/big",
        "lftp -c 'open -p 2121 server; get -c /done/a-job/output.log /done/a-job/big'",
        "curl -sS -C - -O ftp://server:2121/done/a-job/output.log -C - -O ftp://server:2121/done/a-job/big",
    ],
    ids=lambda line: line.split()[0],
)
def test_result_is_fetched_whole_by_anyone_and_the_rest_of_one(house: House, alice: Contributor, line: str) -> None:
    files = {"output.log": b"hello\n" * 1000, "big": images.noise(4 * MIB + 7)}
    house.publish("a-job", files)
    (alice.desk / "big").write_bytes(files["big"][:MIB])
    status, said = alice.run(line)
    assert status == 0, said
    assert {name: (alice.desk / name).read_bytes() for name in files} == files


def test_curl_shows_the_replies_and_not_the_password_as_the_pages_say(house: House, alice: Contributor) -> None:
    send, only = f"curl -snv -T {FILE} ftp://server:2121/queue/ 2>&1", "| grep '^< [245]'"
    for page in ("README.md", "docs/clients.md"):
        assert f"2>&1 {only}`" in (PROJECT / page).read_text()
    _, said = alice.run(f'sh -c "{send} {only}"')
    job_id, _ = only_job(house)
    assert all(line.startswith("< ") for line in said.splitlines())
    assert f"< 226 Accepted as job {job_id}" in said
    assert PASSWORD not in said
    _, all_of_it = alice.run(f'sh -c "{send}"')
    assert f"> PASS {PASSWORD}" in all_of_it


def test_curl_without_a_name_is_told_who_sends_jobs(house: House, alice: Contributor) -> None:
    status, said = alice.run(f"curl -sSv -T {FILE} ftp://server:2121/queue/")
    assert status != 0
    assert "550 Only contributors send jobs; log in as one." in said
    assert house.is_untouched()


def test_waiting_job_is_seen_in_a_later_session_and_not_given_out(house: House, alice: Contributor) -> None:
    with house.client(NAME, PASSWORD) as client:
        client.cwd("queue")
        client.storbinary(f"STOR {FILE}", io.BytesIO(JOB))
    with house.client(NAME, PASSWORD) as client:
        assert client.nlst("queue") == [FILE]
        assert dict(client.mlsd("queue"))[FILE]["size"] == str(len(JOB))
        with pytest.raises(ftplib.error_perm, match="550"):
            client.retrbinary(f"RETR queue/{FILE}", bytes)
