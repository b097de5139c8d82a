"""submit, watch, jobs, fetch, cancel, retry and diff, as they are typed: against an appliance that runs jobs."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from construir_ftp.config import Config
from tests.support import images
from tests.support.appliance import NAME, PASSWORD, Appliance, construir
from tests.support.fakeserver import FakeServer
from tests.support.ftpclient import LONG_S
from tests.support.places import JOBS
from tests.support.tlsclient import make_certificate

ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}-[\w.-]+")
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path, shared_appliance: Appliance) -> dict[str, str]:
    """The environment of a contributor who has the password in ~/.netrc."""
    place = tmp_path / "home"
    place.mkdir()
    (place / ".netrc").write_text(f'machine 127.0.0.1 login {NAME} password "{PASSWORD}"\n')
    (place / ".netrc").chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CONSTRUIR_"))}
    server = f"ftp://127.0.0.1:{shared_appliance.port}"
    images_path = str(Config().images_path())
    return {**kept, "HOME": str(place), "CONSTRUIR_SERVER": server, "CONSTRUIR_IMAGES": images_path}


@pytest.fixture
def run(home: dict[str, str], tmp_path: Path) -> Command:
    """Run the command as that contributor, in a directory of their own."""
    return lambda *words: construir(*words, env=home, cwd=tmp_path, stdin=subprocess.DEVNULL)


def job(path: Path, script: str) -> Path:
    return images.job_directory(path, f"#!/bin/sh\n{script}\n".encode())


def test_submit_prints_the_id_alone_and_wait_ends_as_the_job_does(run: Command, tmp_path: Path) -> None:
    """The whole of it: from a directory to the result in one command."""
    said = run("submit", job(tmp_path / "mine", "echo started; echo made >made; exit 7"), "--wait", "--fetch", "r")
    job_id, *printed = said.stdout.splitlines()
    assert ID.fullmatch(job_id)
    assert printed == ["started"]
    assert said.returncode == 7
    assert "construir: failed: run.sh ended with exit status 7\n" in said.stderr
    assert {path.name for path in (tmp_path / "r").iterdir()} >= {"output.log", "result.json", "mine.img.zst"}
    assert "\x1b" not in said.stdout + said.stderr
    assert not {path.name for path in tmp_path.iterdir()} - {"home", "mine", "r"}, "nothing is left lying about"

    watched = run("watch", "mine")
    assert (watched.returncode, watched.stdout) == (7, "started\n")

    listed = json.loads(run("jobs", "--mine", "--json").stdout)
    assert [(line["id"], line["mine"], line["state"], line["exit_code"]) for line in listed] == [
        (job_id, True, "done", 7)
    ]
    table = run("jobs").stdout
    (line,) = (line for line in table.splitlines() if job_id in line)
    assert re.fullmatch(r"\* +\S+ +failed, 7 +[\d-]+ [\d:]+", line.strip()), table
    assert "\x1b" not in table

    again = run("retry", job_id)
    assert ID.fullmatch(again.stdout.strip()), again.stderr

    fetched = run("fetch", job_id[:24], "--only", "output", "-o", "out")
    assert (fetched.returncode, fetched.stdout) == (0, "out\n")
    assert (tmp_path / "out/output.log").read_text() == "started\n"


def test_a_directory_holds_the_result_of_one_job(run: Command, tmp_path: Path) -> None:
    mine, before = job(tmp_path / "mine", "echo one"), tmp_path / "r"
    first = run("submit", mine, "--wait", "--fetch", "r").stdout.split()[0]
    (before / "output.log").unlink()
    again = run("fetch", first, "-o", "r")
    assert (again.returncode, again.stdout) == (0, "r\n"), "the same one is continued"
    kept = {path.name: path.read_bytes() for path in before.iterdir()}

    for words in (("submit", mine, "--fetch", "r"), ("retry", first, "--fetch", "r")):
        refused = run(*words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == (
            f"construir: nothing is sent: r holds the result of {first}; name another place: --fetch DIR\n"
        )
    second = run("submit", mine, "--wait").stdout.split()[0]
    for only in ((), ("--only", "output")):
        refused = run("fetch", second, "-o", "r", *only)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == (
            f"construir: r holds the result of {first}; name another place: construir fetch {second} -o DIR\n"
        )
    assert {path.name: path.read_bytes() for path in before.iterdir()} == kept
    jobs = json.loads(run("jobs", "--mine", "--json").stdout)
    assert {line["id"] for line in jobs} == {first, second}


def test_ctrl_c_while_waiting_detaches_and_the_job_goes_on(home: dict[str, str], run: Command, tmp_path: Path) -> None:
    slow = job(tmp_path / "slow", "echo begun; sleep 4")
    # What a shell starts in the background ignores Ctrl-C, and so would these tests and what they start.
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "construir_ftp", "submit", str(slow), "--wait"]
    with subprocess.Popen(
        argv, env=home, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        job_id = waiting.stdout.readline().strip()
        assert waiting.stdout.readline() == "begun\n"
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=LONG_S)
    assert waiting.returncode == 130
    assert f"detached; the job goes on. Look again: construir watch {job_id}; end it: construir cancel" in said
    assert "Traceback" not in said
    watched = run("watch", job_id)
    assert (watched.returncode, watched.stdout) == (0, "begun\n")


def test_an_output_that_matches_nothing_is_said_wherever_the_jobs_end_is(run: Command, tmp_path: Path) -> None:
    place = job(tmp_path / "mine", "echo made >made")
    (place / "construir.toml").write_text('outputs = ["build/hello", "made"]\n')
    line = "construir: not in artifacts/, though outputs of construir.toml asks for it: build/hello: matches no file\n"
    said = run("submit", place, "--wait", "--fetch", "r")
    job_id = said.stdout.strip()
    assert (said.returncode, said.stderr.count(line)) == (0, 1), said.stderr
    assert (tmp_path / "r/artifacts/made").exists()
    for words, count in ((("watch", job_id), 1), (("fetch", job_id), 1), (("fetch", job_id, "--only", "output"), 0)):
        told = run(*words)
        assert (told.returncode, told.stderr.count(line)) == (0, count), told.stderr
    (place / "construir.toml").write_text('outputs = ["made"]\n')
    assert "artifacts" not in run("submit", place, "--wait").stderr


def test_certificates_in_a_variable_are_for_servers_with_tls_and_an_option_demands_it(
    home: dict[str, str], tmp_path: Path
) -> None:
    certificate = str(make_certificate(tmp_path)[0])
    for variables, words, status in (
        ({"CONSTRUIR_CAFILE": certificate}, (), 0),
        ({}, ("--ca-file", certificate), 78),
        ({"CONSTRUIR_CAFILE": certificate, "CONSTRUIR_TLS": "required"}, (), 78),
    ):
        said = construir("jobs", *words, env={**home, **variables})
        assert said.returncode == status, said.stderr
        assert "speaks no TLS" in said.stderr or not status


def test_whoever_is_not_let_in_is_told_so_in_english(home: dict[str, str], run: Command) -> None:
    (Path(home["HOME"]) / ".netrc").write_text('machine 127.0.0.1 login bob password "wrong word"\n')
    said = run("submit", JOBS / "hello")
    assert said.returncode == 77
    assert re.search(r"ftp://127\.0\.0\.1:\d+ refuses the login of bob: ", said.stderr)


def test_only_the_reason_is_cut_where_a_terminal_is_narrow(home: dict[str, str], run: Command, tmp_path: Path) -> None:
    run("submit", job(tmp_path / "a-job-of-usual-length", "echo x"), "--wait")
    run("submit", job(tmp_path / "another", "poweroff -f; sleep 60"), "--wait")
    listed = json.loads(run("jobs", "--json").stdout)
    whole = {line["id"] for line in listed}
    (why,) = (line["why"] for line in listed if line["id"].endswith("-another"))
    for columns in (80, 100, 120):
        status, drawn = on_a_terminal({**home, "COLUMNS": str(columns), "NO_COLOR": "1"}, tmp_path, "jobs")
        assert status == 0
        lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines()]
        assert max(map(len, lines)) <= columns
        rows = [
            row
            for line in lines[1:]
            if (row := re.match(r"\*? +(\S+) +(\w[\w-]*(?:, \d+\.?)?) +(\S+ \d\d:\d\d)", line))
        ]
        assert {row[1] for row in rows} == whole, drawn
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", row[3]) for row in rows), drawn
        assert why[:15] in drawn
        assert not [line for line in lines if "success" in line and "exit status" in line]


def test_cancel_ends_a_job_and_watch_says_so_with_a_code_of_its_own(run: Command) -> None:
    job_id = run("submit", JOBS / "hangs").stdout.strip()
    cancelled = run("cancel", "hangs")
    assert (cancelled.returncode, cancelled.stdout) == (0, "")
    assert f"construir: Job {job_id} is cancelled" in cancelled.stderr
    assert run("watch", job_id).returncode == 73
    again = run("cancel", job_id)
    assert again.returncode == 66
    ended = f"Job {job_id} has ended already; see /done/{job_id}/"
    assert again.stderr == f"construir: {job_id} is not cancelled: {ended}\n"


def test_retry_sends_the_same_again_or_says_why_it_cant(run: Command, home: dict[str, str], tmp_path: Path) -> None:
    image = tmp_path / "again.img.zst"
    run("pack", job(tmp_path / "again", "echo again"), "-o", image)
    first = run("submit", image).stdout.strip()
    again = run("retry", first, "--wait")
    second, *printed = again.stdout.splitlines()
    assert (again.returncode, printed) == (0, ["again"])
    assert second != first
    run("watch", first)

    difference = run("diff", first, second)
    assert difference.returncode == 0, difference.stdout
    assert difference.stdout.startswith("the same, but for times\n")
    run("pack", job(tmp_path / "other", "echo other >made; echo different; exit 1"), "-o", image)
    third = run("submit", image, "--wait").stdout.splitlines()[0]
    told = run("diff", first, third)
    assert told.returncode == 1
    for line in ("~ status success -> failed", "~ exit code 0 -> 1", "-again", "+different", "  + /made file"):
        assert line in told.stdout.replace(" 0644", ""), told.stdout
    as_json = json.loads(run("diff", first, third, "--json").stdout)
    assert {file["path"] for file in as_json["files"]} == {"/made", "/run.sh"}

    for name, job_id in (("one", first), ("three", third)):
        run("fetch", job_id, "-o", tmp_path / name)
    assert run("diff", tmp_path / "one", tmp_path / "three").stdout == told.stdout, "brought before, they are the same"
    (tmp_path / "one" / "output.log").unlink()
    assert f"one lacks output.log; bring it: construir fetch {first}" in run("diff", tmp_path / "one", third).stderr

    meant = f"again may be any of 3 jobs that were sent from here; the newest is meant: {third}\n"
    watched = run("watch", "again")
    assert (watched.returncode, watched.stdout) == (1, "different\n")
    fetched = run("fetch", "again", "--only", "output")
    assert (fetched.returncode, fetched.stdout) == (0, f"{third}\n")
    compared = run("diff", first, "again")
    # Where no directory has that name.
    verified = construir("verify", "again", env=home, cwd=tmp_path / "home")
    assert (verified.returncode, compared.returncode, compared.stdout) == (0, 1, told.stdout)
    ambiguous = run("cancel", "again")
    assert (ambiguous.returncode, ambiguous.stdout) == (2, ""), "what is ended is said"
    retried = run("retry", "again")
    assert retried.returncode == 0
    assert all(f"construir: {meant}" in said.stderr for said in (watched, fetched, verified, compared, retried))
    elsewhere = construir("fetch", "again", env={**home, "XDG_STATE_HOME": str(tmp_path / "elsewhere")}, cwd=tmp_path)
    assert (elsewhere.returncode, elsewhere.stdout) == (2, "")
    assert elsewhere.stderr.endswith("; say which\n")

    changed = run("retry", first)
    assert (changed.returncode, changed.stdout) == (2, "")
    assert f"{image} has changed since it was sent" in changed.stderr
    image.unlink()
    gone = run("retry", first)
    assert gone.returncode == 66
    assert f"{image}, which {first} was made of, is gone" in gone.stderr
    assert "was sent from this computer" in run("retry", "20261122T104102Z-7f3a-nobodys").stderr


def test_what_goes_wrong_exits_as_readme_says_in_one_line(run: Command, home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a job\n" * 1000)
    wrong = [
        (65, ("submit", tmp_path / "notes.txt")),
        (66, ("watch", "nothing")),
        (69, ("jobs", "--server", "ftp://127.0.0.1:1")),
        (66, ("submit", tmp_path / "nothing")),
        (78, ("jobs", "--server", "http://127.0.0.1")),
    ]
    for code, words in wrong:
        said = run(*words)
        assert (said.returncode, said.stderr.count("\n")) == (code, 1), said.stderr
        assert said.stdout == ""
    del home["CONSTRUIR_SERVER"]
    assert "no server is named; set CONSTRUIR_SERVER" in run("jobs").stderr
    (tmp_path / "home/.netrc").unlink()
    home["CONSTRUIR_SERVER"] = "ftp://127.0.0.1:1"
    unknown = run("submit", JOBS / "hello")
    assert unknown.returncode == 77
    assert "put into ~/.netrc: machine 127.0.0.1 login NAME password PASSWORD" in unknown.stderr


def test_nothing_is_said_to_a_reader_who_has_read_enough(home: dict[str, str], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "construir_ftp", "jobs", "--json"]
    said = subprocess.run(argv, env=home, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (said.returncode, said.stderr) == (1, b"")


# -- terminals -------------------------------------------------------------------------------------------------


def on_a_terminal(environment: dict[str, str], place: Path, *words: str | Path) -> tuple[int, str]:
    """Run the command on a terminal of its own; its exit status and all that it drew there."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "construir_ftp", *map(str, words)]
    environment = {"COLUMNS": "100", **environment, "TERM": "xterm-256color"}
    with subprocess.Popen(argv, env=environment, cwd=place, stdin=slave, stdout=slave, stderr=slave) as command:
        os.close(slave)
        drawn = b"".join(_read(master))
    os.close(master)
    return command.returncode, drawn.decode(errors="replace")


def _read(master: int) -> Iterator[bytes]:
    deadline = time.monotonic() + LONG_S
    try:
        while (piece := os.read(master, 65536)) and time.monotonic() < deadline:
            yield piece
    except OSError:  # Linux: EIO when the last one has closed the other end
        return


def test_a_job_can_colour_a_terminal_and_do_nothing_else_with_it(home: dict[str, str], tmp_path: Path) -> None:
    job = tmp_path / "hostile"
    job.mkdir()
    (job / "run.sh").write_text("#!/bin/sh\nprintf '\\033[31mred\\033]0;title\\007\\033[2J\\n'\n")
    (job / "run.sh").chmod(0o755)
    status, drawn = on_a_terminal(home, tmp_path, "submit", "--wait", job)
    assert status == 0
    assert "\x1b[31mred\\x1b]0;title\\x07\\x1b[2J\r\n\x1b[0m" in drawn
    assert not [sequence for sequence in ("\x1b]0", "\x1b[2J", "\x07") if sequence in drawn]


def test_a_terminal_is_drawn_on_and_colours_are_left_out_if_that_is_asked_for(
    home: dict[str, str], tmp_path: Path
) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    status, drawn = on_a_terminal(home, tmp_path, "submit", JOBS / "hello")
    assert status == 0
    assert "sending hello.img.zst" in drawn
    assert colour.search(drawn)
    status, drawn = on_a_terminal({**home, "NO_COLOR": "1"}, tmp_path, "submit", JOBS / "hello")
    assert status == 0
    assert "sending hello.img.zst" in drawn
    assert not colour.search(drawn)


def test_what_a_hostile_server_says_reaches_no_terminal(home: dict[str, str], run: Command, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e[bold]"
    result = {"id": "x", "status": evil, "reason": evil, "exit_code": None, "image": evil}
    overview = {"queue": ["x" + evil], "running": [{"job": evil, "doing": evil}], "why": evil}
    files = {
        "/status.json": json.dumps(overview).encode(),
        "/done": f"a\r\n{evil}\r\n".encode(),
        "/done/a/result.json": json.dumps(result).encode(),
        "/done/a/output.log": evil.encode() * 3,
    }
    with FakeServer(status="211 a is done: success", files=files) as server:
        home["CONSTRUIR_SERVER"] = f"ftp://127.0.0.1:{server.port}"
        for words in (("jobs",), ("watch", "a"), ("fetch", "a")):
            status, drawn = on_a_terminal({**home, "NO_COLOR": "1"}, tmp_path, *words)
            assert not {"\x07", "\u202e"} & set(drawn), drawn
            assert "\x1b]" not in drawn
            assert "\x1b[2J" not in drawn
            said = run(*words)
            assert said.returncode == status
            # What the job itself printed goes into a pipe as it is.
            assert said.stdout == evil * 3 or not {"\x07", "\u202e", "\x1b"} & set(said.stdout), words
            assert not {"\x07", "\u202e", "\x1b"} & set(said.stderr)
        assert run("watch", "a").stdout == evil * 3


def test_the_contributors_side_needs_nothing_of_the_appliances() -> None:
    modules = "construir_ftp.cli.submit", "construir_ftp.cli.results"
    forbidden = {"pyftpdlib", "magic", "sh", "schedule", "argon2", "construir_ftp.jail.jail", "construir_ftp.files"}
    script = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not forbidden & set(loaded.split())
