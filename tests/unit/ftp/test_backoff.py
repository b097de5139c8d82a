"""Promises of backoff: guessing gets slower and slower, and nobody is locked out by what others guess."""

import pytest

from construir_ftp import schema
from construir_ftp.config import FtpSection
from construir_ftp.ftp import backoff
from construir_ftp.ftp.backoff import Backoff

FTP = FtpSection()
HOME, ELSEWHERE, BAD = "192.0.2.1", "192.0.2.2", "198.51.100.7"
SHORT_S = FTP.login_timeout / 4
LONG_S = float(FTP.max_wrong_password_pause)


@pytest.fixture
def pauses() -> Backoff:
    return Backoff(FTP)


def guess(pauses: Backoff, network: str, name: str, times: int, now: float = 0.0) -> float:
    """Wrong passwords, each as soon as it may be; when the last of them was."""
    for _ in range(times):
        now += pauses.wait_s(network, name, now)
        pauses.note_wrong(network, name, now)
    return now


def test_nobody_waits_who_was_never_wrong(pauses: Backoff) -> None:
    assert pauses.wait_s(HOME, "alice", 0.0) == 0.0


def test_pause_of_an_address_doubles_up_to_its_longest(pauses: Backoff) -> None:
    now, waits = 0.0, []
    for number in range(12):
        now = guess(pauses, BAD, f"name{number}", 1, now)
        waits.append(pauses.wait_s(BAD, "another", now))
    assert waits[:3] == pytest.approx([1, 2, 4], rel=0.02)
    assert waits == sorted(waits)
    assert waits[-1] == LONG_S


def test_pause_of_a_name_doubles_whatever_addresses_it_is_tried_from_but_stays_short(pauses: Backoff) -> None:
    waits = []
    for number in range(100):
        pauses.note_wrong(f"198.51.100.{number}", "alice", 0.0)
        waits.append(pauses.wait_s(ELSEWHERE, "alice", 0.0))
    assert waits[:3] == [1, 2, 4]
    assert max(waits) == SHORT_S < FTP.login_timeout
    assert pauses.wait_s(ELSEWHERE, "bob", 0.0) == 0.0


def test_stranger_who_guesses_at_alice_does_not_delay_her_where_she_logged_in(pauses: Backoff) -> None:
    pauses.note_right(HOME, "alice", 0.0)
    now = guess(pauses, BAD, "alice", 20)
    assert pauses.wait_s(HOME, "alice", now) == 0.0


def test_stranger_at_alices_own_address_who_guesses_at_others_does_not_delay_her(pauses: Backoff) -> None:
    pauses.note_right(HOME, "alice", 0.0)
    now = guess(pauses, HOME, "root", 20)
    assert pauses.wait_s(HOME, "alice", now) == 0.0
    assert pauses.wait_s(HOME, "bob", now) == LONG_S


def test_stranger_at_alices_own_address_who_guesses_at_her_delays_her_for_seconds(pauses: Backoff) -> None:
    pauses.note_right(HOME, "alice", 0.0)
    now = guess(pauses, HOME, "alice", 20)
    assert 0 < pauses.wait_s(HOME, "alice", now) <= SHORT_S


def test_login_forgets_ones_own_wrong_passwords(pauses: Backoff) -> None:
    now = guess(pauses, HOME, "alice", 4)
    pauses.note_right(HOME, "alice", now)
    assert pauses.wait_s(HOME, "alice", now) == 0.0
    assert pauses.wait_s(ELSEWHERE, "alice", now) == 0.0


def test_own_account_does_not_pay_for_guessing_at_others(pauses: Backoff) -> None:
    now = 0.0
    for _ in range(10):
        now = guess(pauses, BAD, "alice", 1, now)
        pauses.note_right(BAD, "mallory", now)
    assert pauses.wait_s(BAD, "alice", now) == pytest.approx(LONG_S)


def test_counts_decay(pauses: Backoff) -> None:
    now = guess(pauses, BAD, "alice", 9)
    assert pauses.wait_s(BAD, "alice", now) > 200
    assert guess(pauses, BAD, "bob", 1, now + 6 * 3600) == now + 6 * 3600
    assert pauses.wait_s(BAD, "bob", now + 6 * 3600) == pytest.approx(1.0, rel=0.1)


def test_endless_guessing_is_forgotten_as_soon_as_any(pauses: Backoff) -> None:
    now = guess(pauses, BAD, "alice", 5000)
    pauses.note_wrong(BAD, "alice", now + 4 * 3600)
    assert pauses.wait_s(BAD, "alice", now + 4 * 3600) < 2


def test_address_is_known_for_a_day(pauses: Backoff) -> None:
    pauses.note_right(HOME, "alice", 0.0)
    assert pauses.is_known(HOME, "alice", 86000.0)
    assert not pauses.is_known(HOME, "alice", 87000.0)
    assert not pauses.is_known(HOME, "bob", 0.0)


def test_memory_is_bounded_and_who_guessed_last_is_remembered(pauses: Backoff, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backoff._MOST_ENTRIES <= 10_000
    monkeypatch.setattr(backoff, "_MOST_ENTRIES", 100)
    for number in range(1000):
        pauses.note_wrong(f"network{number}", "x" * number, float(number))
        pauses.note_right(f"network{number}", f"name{number}", float(number))
        pauses.note_wrong(f"network{number}", f"name{number}", float(number))
    for tally in (pauses._addresses, pauses._names, pauses._pairs):
        assert len(tally._counts) <= 100
    assert len(pauses._known) == 100
    assert all(len(str(name)) <= 33 for name in pauses._names._counts)
    assert pauses.wait_s("network999", "bob", 999.0) == 1.0
    assert pauses.wait_s("network0", "bob", 999.0) == 0.0


def test_delay_of_a_name_fits_into_any_login_timeout() -> None:
    ftp = schema.convert({"login_timeout": "400ms"}, FtpSection)
    pauses = Backoff(ftp)
    pauses.note_right(HOME, "alice", 0.0)
    for _ in range(10):
        pauses.note_wrong(HOME, "alice", 0.0)
    assert pauses.wait_s(HOME, "alice", 0.0) < 0.4
