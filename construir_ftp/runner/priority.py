"""Which place jobs have beside what else runs on this computer.

A weight counts among neighbours only. That of a machine is therefore not enough in a unit of systemd, which has one of
its own: there the slice with nothing but the runner in it gets the least (systemd.resource-control(5)).
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Literal

from construir_ftp import process
from construir_ftp.errors import CommandError
from construir_ftp.jail import jail

log = logging.getLogger("construir.runner")

# Of deploy/systemd/construir-runner.service.
_SLICE = "construir.slice"
_ANSWER_S = 10.0


def take(priority: Literal["normal", "low"]) -> None:
    """Have what is jailed from now on run at this priority."""
    if priority == "low":
        jail.lower_priority()
    if _is_in_slice():
        _weigh("1" if priority == "low" else "")


def _is_in_slice() -> bool:
    with suppress(OSError):
        return f"/{_SLICE}/" in Path("/proc/self/cgroup").read_text()
    return False


def _weigh(weight: str) -> None:
    """Until the next boot; without a weight that which all have."""
    settings = [f"{name}={weight}" for name in ("CPUWeight", "IOWeight")]
    try:
        process.run(["systemctl", "set-property", "--runtime", _SLICE, *settings], timeout_s=_ANSWER_S)
    except CommandError as error:
        log.warning("%s can't be given its weight: %s", _SLICE, error)
