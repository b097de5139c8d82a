"""A machine's deadlines go by a clock that stands still while the machine does."""

import time

from construir_ftp.machine.deadlines import Deadlines


def test_deadline_comes_no_nearer_while_the_machine_stands_still() -> None:
    deadlines = Deadlines()
    deadlines.set({"timeout": 100.0, "idle-timeout": 50.0})
    deadlines.stand_still()
    deadlines.stand_still()
    left_s = deadlines.left_s()
    time.sleep(0.2)
    assert deadlines.left_s() == left_s, "it stands"
    deadlines.go_on()
    assert 49 < deadlines.left_s() <= left_s
    assert deadlines.stood_still_s() >= 0.2
    time.sleep(0.01)
    assert deadlines.left_s() < left_s, "it goes on"
    deadlines.put_off("idle-timeout")
    assert deadlines.next() == "idle-timeout"
    assert left_s - 1 < deadlines.left_s() <= 50


def test_what_never_stood_still_says_so() -> None:
    deadlines = Deadlines()
    deadlines.go_on()
    assert deadlines.stood_still_s() == 0
