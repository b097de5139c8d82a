"""What a machine's end means: the job's failure, or ours."""

from typing import Any

import pytest

from construir_ftp.jobs.result import Claims
from construir_ftp.machine import outcome
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.outcome import MachineFault, Outcome

WENT_WELL = {"ready": True, "started": True}


def judged(report: dict[str, Any], **ending: Any) -> Outcome | MachineFault:
    return outcome.judge(Ending(claims=Claims(**report), booted=0.0, **{"status": 0, **ending}))


@pytest.mark.parametrize(
    ("report", "ending", "status", "exit_code"),
    [
        ({**WENT_WELL, "exit_code": 0, "clean": True}, {}, "success", 0),
        ({**WENT_WELL, "exit_code": 3, "clean": True}, {}, "failed", 3),
        ({**WENT_WELL, "exit_code": 0}, {}, "no-result", 0),
        ({**WENT_WELL, "exit_code": 3}, {}, "failed", 3),
        ({**WENT_WELL, "exit_code": 0}, {"killed": "power-off-timeout", "status": -9}, "no-result", 0),
        ({**WENT_WELL, "exit_code": 0, "clean": True}, {"killed": "power-off-timeout", "status": -9}, "no-result", 0),
        ({**WENT_WELL, "exit_code": 3, "clean": True}, {"killed": "power-off-timeout", "status": -9}, "failed", 3),
        ({"ready": True}, {"killed": "mount-timeout", "status": -9}, "failed", None),
        ({**WENT_WELL, "exit_code": 4, "unwritten": "/job"}, {}, "failed", 4),
        ({"ready": True, "error": "there is no run.sh at the root of the image"}, {}, "failed", None),
        (WENT_WELL, {"killed": "timeout", "status": -9}, "timeout", None),
        (WENT_WELL, {}, "no-result", None),
        ({"ready": True}, {}, "no-result", None),
        (WENT_WELL, {"status": -6, "chosen": True}, "no-result", None),
        ({"ready": True}, {"status": -6, "chosen": True}, "no-result", None),
    ],
)
def test_job_that_had_its_machine_is_judged(
    report: dict[str, Any], ending: dict[str, Any], status: str, exit_code: int | None
) -> None:
    verdict = judged(report, **ending)
    assert isinstance(verdict, Outcome)
    assert (verdict.status, verdict.exit_code) == (status, exit_code)


def test_who_lacks_a_program_is_told_where_to_name_its_package() -> None:
    told = {code: judged({**WENT_WELL, "clean": True, "exit_code": code}) for code in (1, 126, 127)}
    assert ["name its Debian package" in verdict.reason for verdict in told.values()] == [False, False, True]


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"exit_code": 0, "signal": 9, "powered_off": True, "starved": "x"}, "run.sh ended with exit status 0"),
        ({"exit_code": 200, "signal": 200}, "run.sh was killed by signal 200"),
        ({"exit_code": 193}, "run.sh ended with exit status 193"),
    ],
)
def test_claims_that_make_no_sense_make_none_of_the_reason(report: dict[str, Any], reason: str) -> None:
    verdict = judged({**WENT_WELL, **report, "clean": True})
    assert isinstance(verdict, Outcome)
    assert verdict.reason == reason


@pytest.mark.parametrize("tail", [b"", b"\xff\x00\x1b[2J", b"reboot: Power", b"reboot: \r\n" * 500])
def test_console_that_does_not_say_why_the_machine_ended_leaves_it_open(tail: bytes) -> None:
    verdict = judged(WENT_WELL, console_tail=tail)
    assert verdict == Outcome(
        "no-result", "the machine ended before run.sh did: it was switched off, restarted, or crashed"
    )


def test_what_a_kernel_says_last_is_quoted_in_one_short_line() -> None:
    verdict = judged(WENT_WELL, console_tail=b"Kernel panic - not syncing: \x1b[2J\xff" + b"a" * 1000 + b"\r\nmore")
    assert isinstance(verdict, Outcome)
    assert verdict.reason.isprintable()
    assert len(verdict.reason) < 250
    assert verdict.reason.startswith("the machine ended before run.sh did: its kernel panicked (?[2J")


@pytest.mark.parametrize(
    ("report", "ending"),
    [
        ({}, {}),
        ({}, {"killed": "boot-timeout", "status": -9}),
        ({"ready": True}, {"killed": "boot-timeout", "status": -9}),
        ({}, {"status": 1, "words": "cannot set up guest memory"}),
        (WENT_WELL, {"status": -9}),
        ({**WENT_WELL, "exit_code": 0}, {"status": -11}),
        ({**WENT_WELL, "exit_code": 0, "unwritten": "/job"}, {}),
    ],
)
def test_machine_that_failed_says_nothing_of_who_is_to_blame(report: dict[str, Any], ending: dict[str, Any]) -> None:
    assert isinstance(judged(report, **ending), MachineFault)
