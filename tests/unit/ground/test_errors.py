"""errors: one code for one kind of trouble, whichever command meets it."""

import typing

import pytest

from construir_ftp.errors import RefusedError, exit_code_of
from construir_ftp.jobs import result as results


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("success", 0, 0),
        ("failed", 3, 3),
        ("failed", None, 126),
        ("timeout", None, 124),
        ("idle-timeout", None, 124),
        ("no-result", 0, 71),
        ("dependency-failed", None, 72),
        ("cancelled", None, 73),
        ("lost", None, 70),
    ],
)
def test_a_job_ends_the_command_with_its_own_code_or_with_ours(status: str, code: int | None, expected: int) -> None:
    assert exit_code_of(status, code) == expected


def test_every_status_but_success_ends_the_command_with_a_failure() -> None:
    statuses = set(typing.get_args(results.Status)) - {"success"}
    codes = (None, 0, 256, -1, 1)
    assert all(exit_code_of(status, code) for status in statuses for code in codes)
    assert all(exit_code_of("said-by-a-server-to-come", code) for code in codes)


def test_what_may_be_taken_later_is_told_from_what_is_no_job() -> None:
    assert RefusedError("no job", 550).exit_code == 65
    assert RefusedError("no room", 452).exit_code == 75
