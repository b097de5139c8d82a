"""Sizes and durations as people write and read them."""

from datetime import time

import pytest

from construir_ftp.units import Duration, Hours, exactly, in_words


@pytest.mark.parametrize(
    ("written", "said"),
    [("0s", "0 s"), ("500ms", "0.5 s"), ("90s", "1.5 min"), ("30m", "30 min"), ("2h", "2 h"), ("36h", "1.5 d")],
)
def test_duration_is_said_in_its_largest_unit(written: str, said: str) -> None:
    assert in_words(Duration.parse(written)) == said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        *(("2h", "2h"), ("90min", "90min"), ("7201s", "7201s"), ("48h", "2d"), ("500ms", "0.5s")),
        *(("1234567s", "1234567s"), ("12345.678s", "12345.678s"), ("3650d", "3650d")),
    ],
)
def test_a_limit_is_said_as_one_would_set_it(written: str, said: str) -> None:
    assert exactly(Duration.parse(written)) == said
    assert Duration.parse(said) == Duration.parse(written)


@pytest.mark.parametrize(
    ("hours", "within", "without"),
    [
        ("09:00-17:30", ["09:00", "17:29"], ["08:59", "17:30", "00:00"]),
        ("22:00-07:00", ["22:00", "23:59", "00:00", "06:59"], ["07:00", "21:59"]),
        ("00:00-00:00", ["00:00", "12:00"], []),
        ("", ["00:00", "12:00"], []),
    ],
)
def test_hours_hold_the_times_of_day_between_them(hours: str, within: list[str], without: list[str]) -> None:
    found = {moment: Hours.parse(hours).include(time.fromisoformat(moment)) for moment in (*within, *without)}
    assert [moment for moment, is_in in found.items() if is_in] == within


@pytest.mark.parametrize("wrong", ["22-7", "24:00-07:00", "22:00-07:60", "22:00", "always", 7])
def test_hours_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"^expected two times of day"):
        Hours.parse(wrong)
