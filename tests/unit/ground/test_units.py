"""Sizes and durations as people write and read them."""

import pytest

from construir_ftp.units import Duration, exactly, in_words


@pytest.mark.parametrize(
    ("written", "said"),
    [("0s", "0 s"), ("500ms", "0.5 s"), ("90s", "1.5 min"), ("30m", "30 min"), ("2h", "2 h"), ("36h", "1.5 d")],
)
def test_duration_is_said_in_its_largest_unit(written: str, said: str) -> None:
    assert in_words(Duration.parse(written)) == said


@pytest.mark.parametrize(
    ("written", "said"), [("2h", "2h"), ("90min", "90min"), ("7201s", "7201s"), ("48h", "2d"), ("500ms", "0.5s")]
)
def test_a_limit_is_said_as_one_would_set_it(written: str, said: str) -> None:
    assert exactly(Duration.parse(written)) == said
    assert Duration.parse(said) == Duration.parse(written)
