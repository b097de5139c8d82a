"""Promises of sd_notify: what the environment says is taken, nonsense is not."""

import math
import os

import pytest

from construir_ftp.appliance.sd_notify import Manager


@pytest.mark.parametrize(
    ("watchdog", "every_s"),
    [
        ("4000000", 1.0),
        ("1", 0.1),
        ("", math.inf),
        ("0", math.inf),
        ("-1", math.inf),
        ("soon", math.inf),
        ("9" * 400, math.inf),
        ("9" * 5000, math.inf),
        ("\N{ARABIC-INDIC DIGIT FIVE}", math.inf),
    ],
)
def test_signs_of_life_come_more_often_than_is_asked_for(watchdog: str, every_s: float) -> None:
    assert Manager.of({"WATCHDOG_USEC": watchdog}).alive_every_s == every_s


@pytest.mark.parametrize(("pid", "is_meant"), [("ours", True), ("1", False), ("nobody", False)])
def test_watchdog_of_another_process_is_not_ours(pid: str, is_meant: bool) -> None:
    manager = Manager.of({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": pid.replace("ours", str(os.getpid()))})
    assert math.isfinite(manager.alive_every_s) == is_meant


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody", "x" * 500, "not\N{SNOWMAN}", "\0"])
def test_manager_that_is_not_there_is_no_error(address: str) -> None:
    Manager.of({"NOTIFY_SOCKET": address}).ready()
