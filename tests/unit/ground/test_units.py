"""Sizes and durations as people write and read them."""

import pytest

from construir_ftp.units import Duration, in_words


@pytest.mark.parametrize(
    ("written", "said"),
    [("0s", "0 s"), ("500ms", "0.5 s"), ("90s", "1.5 min"), ("30m", "30 min"), ("2h", "2 h"), ("36h", "1.5 d")],
)
def test_duration_is_said_in_its_largest_unit(written: str, said: str) -> None:
    assert in_words(Duration.parse(written)) == said
