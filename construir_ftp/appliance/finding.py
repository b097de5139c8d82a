"""What was found of one thing that the appliance needs."""

from collections.abc import Callable
from typing import Literal

import msgspec

from construir_ftp.errors import ConstruirError

State = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the check. `remedy` says what to do; empty where nothing is to be done."""

    subject: str
    state: State
    text: str
    remedy: str = ""


def attempt(subject: str, remedy: str, look: Callable[[], str]) -> Finding:
    """What the look says; a problem with that remedy, if it raises."""
    try:
        return Finding(subject, "ok", look())
    except (ConstruirError, OSError) as error:
        return Finding(subject, "problem", str(error), remedy)
