"""A short pass of every target in each run, always the same; a longer one, by chance, with --all."""

import importlib.util
from pathlib import Path

import pytest

from tests.fuzz import campaign

# A few seconds each: those that speak to a real server, or sign, are slower. The corpus is tried in any case.
QUICK, QUICK_SLOW = 500, 40
ALL, ALL_SLOW = 50_000, 5_000
SLOW = ("ftp", "http", "provenance")


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not to be had for this Python")
@pytest.mark.parametrize("name", campaign.names())
def test_nothing_that_comes_in_breaks_a_process(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    is_all = request.config.getoption("--all")
    most, most_of_slow = (ALL, ALL_SLOW) if is_all else (QUICK, QUICK_SLOW)
    inputs = most_of_slow if name in SLOW else most
    found = campaign.run(name, inputs, 0 if is_all else 1, tmp_path)
    assert not found.fault, found.fault
    assert found.inputs >= inputs


def test_every_target_begins_with_examples() -> None:
    assert campaign.names() == sorted(path.name for path in campaign.CORPUS.iterdir())
