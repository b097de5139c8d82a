"""News of a real appliance: by mail and webhook, across kill -9, and past a mail server that hangs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from construir_ftp.ftp.users import Users
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from tests.support import machines
from tests.support.appliance import CONFIG, NAME, Appliance, construir
from tests.support.ftpclient import users_text, wait_until
from tests.support.receivers import Hooks, Mailbox, smtp_server, stuck_server, web_server
from tests.support.results import publish

OPS, ALICE = "ops@example.org", "alice@example.org"


def notify(port: int, url: str, more: str = "") -> str:
    return (
        f'{CONFIG}[notify]\nsmtp = "localhost:{port}"\nsmtp_tls = "none"\noperators = ["{OPS}"]\n'
        f'server = "ftp://build.example.org"\nwebhook = "{url}"\n{more}'
    )


def appliance_at(place: Path, config: str) -> Appliance:
    """One that is not started yet, whose contributor has an address."""
    made = Appliance(place, config)
    made.spool.mkdir()
    (made.spool / "users.toml").write_text(users_text(NAME))
    construir("user", "set", NAME, f"--mail={ALICE}", f"--config={made.config}", f"--spool={made.spool}", check=True)
    assert Users(made.spool / "users.toml").mail(NAME) == ALICE
    return made


def kinds(hooks: Hooks) -> list[str]:
    return [event["kind"] for event in hooks.events()]


def test_contributor_hears_of_their_job_and_a_mail_server_that_hangs_delays_neither_job_nor_webhook(
    tmp_path: Path, base: BaseImage, hello: Path
) -> None:
    with web_server() as hooks:
        with stuck_server() as (port, connected):
            appliance = appliance_at(tmp_path, machines.light(notify(port, hooks.url)))
            with appliance.running():
                first = appliance.submit(hello)
                assert appliance.wait(first)["status"] == "success"
                wait_until(lambda: kinds(hooks).count("job") == 1, "the webhook is told")
                wait_until(lambda: connected() >= 1, "the mail server is asked")
                second = appliance.submit(hello)
                assert appliance.wait(second)["status"] == "success"
                wait_until(lambda: kinds(hooks).count("job") == 2, "the webhook is told of the second, too")
        jobs = [event for event in hooks.events() if event["kind"] == "job"]
        assert [event["job"] for event in jobs] == [first, second]
        assert jobs[0]["result"]["contributor"] == NAME
        with smtp_server() as box:
            appliance.config.write_text(machines.light(notify(box.port, hooks.url)))
            with appliance.running():
                wait_until(lambda: len(box.subjects(ALICE)) >= 2, "alice has her mail at last")
    assert [subject.partition("] ")[2] for subject in box.subjects(ALICE)] == ["hello: success"] * 2
    text = next(mail for to, mail in box.mails if ALICE in to).get_content()
    assert f"construir fetch {first} --server ftp://build.example.org" in text
    assert not [subject for subject in box.subjects(OPS) if "hello" in subject]


def test_operators_hear_what_is_wrong_and_news_that_was_killed_tells_the_rest(tmp_path: Path, hello: Path) -> None:
    nothing = f'[images]\npath = "{tmp_path / "none"}"\n'
    with smtp_server() as box, web_server() as hooks:
        box.is_busy = True
        appliance = appliance_at(tmp_path, notify(box.port, hooks.url) + nothing)
        with appliance.running():
            wait_until(lambda: "base-image" in kinds(hooks), "the missing base image is told")
            appliance.submit(hello)
            wait_until(lambda: "paused" in kinds(hooks), "the pause is told")
            os.kill(appliance.parts()["janitor"], signal.SIGKILL)
            wait_until(lambda: "restarted" in kinds(hooks), "the restart is told")
            appliance.wait_until_logged(f"operator:{OPS} is not told yet")
            assert box.mails == []
            os.kill(appliance.parts()["news"], signal.SIGKILL)
            box.is_busy = False
            wait_until(lambda: len(box.subjects(OPS)) >= 4, "the operator has all of it")
            where = f"--config={appliance.config}", f"--spool={appliance.spool}"
            told = construir("news", "--test", *where, check=True).stdout
    assert [subject.partition("] ")[2] for subject in box.subjects(OPS)] == [
        "base image bookworm-amd64 can't be used",
        "no job is run",
        "janitor came to a bad end, and was started again",
        "news came to a bad end, and was started again",
        "a test",
    ]
    assert told == f"operator {OPS}: told\nwebhook: told\n"
    assert box.subjects(ALICE) == []


@contextmanager
def telling(appliance: Appliance) -> Iterator["subprocess.Popen[bytes]"]:
    """The part by itself; killed when the context is left, if it still runs."""
    argv = [sys.executable, "-m", "construir_ftp", "serve", "news", f"--config={appliance.config}"]
    with (
        appliance.log.open("ab") as log,
        subprocess.Popen([*argv, f"--spool={appliance.spool}"], stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def test_kill_in_the_midst_of_a_message_loses_none_and_keeps_their_order(tmp_path: Path) -> None:
    with smtp_server() as box, web_server() as hooks:
        appliance = appliance_at(tmp_path, notify(box.port, hooks.url, "max_per_hour = 1000\n"))
        spool = Spool.prepare(appliance.spool)
        with telling(appliance):
            wait_until((spool.path / "news.json").exists, "what is there is known")
        for number in range(8):
            publish(spool, number)
            with telling(appliance) as process:
                wait_until(lambda: len(hooks.got) + len(box.mails) > number, "something is told")  # noqa: B023
                process.kill()
        with telling(appliance):
            wait_until(lambda: len(set(names(box))) == 8 and "job7" in told(hooks), "all is told")
    assert list(dict.fromkeys(names(box))) == [f"job{number}" for number in range(8)]
    assert list(dict.fromkeys(told(hooks))) == [f"job{number}" for number in range(8)]


def names(box: Mailbox) -> list[str]:
    return [subject.partition("] ")[2].partition(":")[0] for subject in box.subjects(ALICE)]


def told(hooks: Hooks) -> list[str]:
    return [event["subject"].partition(":")[0] for event in hooks.events() if event["kind"] == "job"]
