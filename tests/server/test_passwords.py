"""Promises of passwords: guessing gets nowhere, takes nobody else's turn, and locks nobody out."""

import functools
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from construir_ftp.ftp.users import Users
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, serving, wait_until

GUESSER, HOME, ELSEWHERE = "127.0.0.2", "127.0.0.3", "127.0.0.4"
# Longer than any test here: of one address no more than one guess is looked at.
LONG_PAUSE = "20s"
# Before that whoever waits for it is sent away. No login of a test takes so long, even on a host that stands still.
LATE = "15s"


@functools.cache
def users_text() -> str:
    """A users file as it is by default: to check a password takes long, on purpose."""
    with tempfile.TemporaryDirectory() as directory:
        users = Users(Path(directory) / "users.toml")
        for name in ("alice", "bob"):
            users.add(name, PASSWORD)
        return users.path.read_text()


@contextmanager
def guarded(place: Path, **settings: Any) -> Iterator[House]:
    """A server whose contributors have such passwords."""
    with serving(place, **settings) as house:
        house.users.path.write_text(users_text())
        yield house


@contextmanager
def guessing(house: House, sources: list[str], name: str = "alice") -> Iterator[list[Control]]:
    """Connections that have each sent a wrong password, all before the first is answered."""
    with ExitStack() as stack:
        guessers = [stack.enter_context(house.connect(source)) for source in sources]
        for guesser in guessers:
            assert guesser.reply().startswith("220")
            assert guesser.ask(f"USER {name}").startswith("331")
        for guesser in guessers:
            guesser.send("PASS wrong password")
        yield guessers


def answered(guessers: list[Control]) -> int:
    return len(select.select([guesser.socket for guesser in guessers], [], [], 0)[0])


def send_everyone_away(house: House) -> None:
    """Now, and not when their time is over: who waits for an answer is not seen to leave."""
    for session in list(house.listener.sessions):
        house.listener.bell.call(session.close)


def log_in(house: House, source: str, name: str = "alice") -> None:
    with house.connect(source) as control:
        control.log_in(name)


@pytest.mark.steady(1)
def test_many_guesses_of_one_address_take_one_turn(tmp_path: Path) -> None:
    with (
        guarded(tmp_path, wrong_password_pause=LONG_PAUSE, login_timeout=LATE) as house,
        guessing(house, [GUESSER] * 40) as guessers,
    ):
        log_in(house, HOME, "bob")
        log_in(house, HOME, "alice")
        assert answered(guessers) <= 1
        send_everyone_away(house)


@pytest.mark.steady(1)
def test_who_logged_in_there_before_is_not_kept_waiting_by_guesses_at_their_name(tmp_path: Path) -> None:
    with guarded(tmp_path, wrong_password_pause=LONG_PAUSE, login_timeout=LATE) as house:
        log_in(house, HOME)
        with guessing(house, [f"127.0.1.{number}" for number in range(30)]) as strangers:
            log_in(house, HOME)
            assert answered(strangers) < 15
        send_everyone_away(house)


@pytest.mark.steady(1)
def test_who_logged_in_there_before_does_not_wait_for_others_at_their_address(tmp_path: Path) -> None:
    with guarded(tmp_path, wrong_password_pause=LONG_PAUSE, login_timeout=LATE) as house:
        log_in(house, HOME)
        with guessing(house, [HOME] * 10, "bob") as neighbours:
            log_in(house, HOME)
            assert answered(neighbours) <= 1
        send_everyone_away(house)


@pytest.mark.steady(1)
def test_who_never_logged_in_from_there_gets_in_although_strangers_guess_at_their_name(tmp_path: Path) -> None:
    with guarded(tmp_path, wrong_password_pause=LONG_PAUSE, login_timeout=LATE) as house:
        with guessing(house, [f"127.0.1.{number}" for number in range(5)]) as strangers:
            for stranger in strangers:
                assert stranger.reply().startswith("530")
        log_in(house, ELSEWHERE)


def test_first_login_of_many_at_once_makes_the_others_known(tmp_path: Path) -> None:
    with guarded(tmp_path) as house, ExitStack() as stack:
        sessions = [stack.enter_context(house.connect(HOME)) for _ in range(10)]
        for session in sessions:
            session.send("USER alice", f"PASS {PASSWORD}")
        for session in sessions:
            assert [session.reply()[:3] for _ in range(3)] == ["220", "331", "230"]


def test_address_that_would_have_to_wait_too_long_is_told_when_to_come_back(tmp_path: Path) -> None:
    with guarded(tmp_path, wrong_password_pause="1min", login_timeout="30s") as house:
        for reply in ("530", "421 Too many wrong passwords from your address; try again in "):
            with house.connect(GUESSER) as guesser:
                guesser.reply()
                guesser.ask("USER alice")
                assert guesser.ask(f"PASS {'wrong' if reply == '530' else PASSWORD}").startswith(reply)
        log_in(house, HOME)


@pytest.mark.steady(1)
def test_guess_of_a_connection_that_was_closed_is_never_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded(tmp_path, wrong_password_pause="6s", login_timeout="3s") as house:
        with guessing(house, [GUESSER] * 5) as guessers:
            assert sorted(guesser.reply()[:3] for guesser in guessers) == ["421"] * 4 + ["530"]
        wait_until(lambda: not house.listener.sessions, "the sessions are closed")
        assert not house.listener.passwords._lanes
    assert sum("wrong name or password" in line for line in caplog.messages) == 1


@pytest.mark.steady(1)
def test_users_file_that_cannot_be_read_is_held_against_nobody(tmp_path: Path) -> None:
    with guarded(tmp_path, wrong_password_pause=LONG_PAUSE, login_timeout=LATE) as house:
        whole = house.users.path.read_text()
        house.users.path.write_text("[contributors")
        with guessing(house, [HOME]) as (alice,):
            assert alice.reply().startswith("530")
        house.users.path.write_text(whole)
        log_in(house, HOME)


@pytest.mark.steady(1)
def test_hydra_gets_nowhere_and_others_are_served_meanwhile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not shutil.which("hydra"):
        pytest.skip("hydra is not installed")
    words = tmp_path / "words"
    words.write_text("".join(f"wrong password {number}\n" for number in range(30)) + PASSWORD + "\n")
    with guarded(tmp_path, wrong_password_pause="1s") as house:
        host, port = house.server.address
        argv = ["hydra", "-I", "-t", "16", "-s", str(port), "-l", "alice", "-P", str(words), f"ftp://{host}"]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path, start_new_session=True
        ) as hydra:
            for guesses in (1, 2, 3):
                wait_until(lambda n=guesses: wrong_guesses(caplog) >= n, "hydra guesses")  # type: ignore[misc]
                log_in(house, HOME, "bob")
                log_in(house, ELSEWHERE, "alice")
                log_in(house, HOME, "anonymous")
            assert hydra.poll() is None, "it was at it all the time"
            os.killpg(hydra.pid, signal.SIGKILL)
            said = hydra.communicate(timeout=LONG_S)[0].decode()
        assert wrong_guesses(caplog) <= 5
        assert "valid password found" not in said
        assert PASSWORD not in said
        send_everyone_away(house)


def wrong_guesses(caplog: pytest.LogCaptureFixture) -> int:
    return sum("wrong name or password" in line for line in caplog.messages)
