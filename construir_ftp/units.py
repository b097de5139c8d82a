"""Sizes and durations as people write them: "512MiB", "90min". Without a unit they are nothing. And mail addresses."""

import re
from collections.abc import Mapping
from datetime import time
from decimal import Decimal
from typing import Self

_SIZE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SPOKEN = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_TIME_UNITS = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_TIME_OF_DAY = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_HOURS = re.compile(f"{_TIME_OF_DAY}-{_TIME_OF_DAY}")
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")

# What a file offset (off_t, 63 bits) and a timedelta, a poll(2) or a wait still take.
_MOST_BYTES = 2**63 - 1
_MOST_SECONDS = 100 * 365 * 86400

# The common part of RFC 5321's addresses: nothing that a header, or the arguments of a program, could take for more.
_MAIL_ADDRESS = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._%+/=-]{0,63}@[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII
)

_QUOTED_CHARACTERS = 40


class Size(int):
    """A number of bytes, written with its unit: "512MiB"."""

    expected = f'a number with a unit ({", ".join(_SIZE_UNITS)}), such as "512MiB"'

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "512MiB". Raises ValueError saying what was expected."""
        return cls(_quantity(text, _SIZE_UNITS, cls.expected, _MOST_BYTES, "8 EiB"))


class Duration(float):
    """A number of seconds, written with its unit: "90min"."""

    expected = f'a number with a unit ({", ".join(_TIME_UNITS)}), such as "90min"'

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "90min". Raises ValueError saying what was expected."""
        return cls(_quantity(text, _TIME_UNITS, cls.expected, _MOST_SECONDS, "100 years"))


class Hours(str):
    """When of a day something is, by the clock of this computer: "22:00-07:00". Empty: all day."""

    expected = 'two times of day, such as "22:00-07:00"; or "" for all day'

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read "22:00-07:00". Raises ValueError saying what was expected."""
        if not isinstance(text, str) or (text and not _HOURS.fullmatch(text)):
            raise ValueError(f"expected {cls.expected}, got {_quoted(text)}")
        return cls(text)

    def include(self, moment: time) -> bool:
        """Whether a time of day is in them; the first minute is, the last one isn't."""
        if not self:
            return True
        begin, end = map(time.fromisoformat, self.split("-"))
        return begin <= moment < end if begin < end else moment >= begin or moment < end


def in_words(duration_s: float) -> str:
    """A duration for people to read, in its largest unit: "1.5 h"."""
    unit, unit_s = next(((unit, unit_s) for unit, unit_s in _SPOKEN if duration_s >= unit_s), _SPOKEN[-1])
    return f"{duration_s / unit_s:.3g} {unit}"


def exactly(duration_s: float) -> str:
    """A duration as one would set it, in the largest unit that it is a whole number of: "2h", "90min"."""
    unit, unit_s = next((row for row in _SPOKEN if duration_s >= row[1] and duration_s % row[1] == 0), _SPOKEN[-1])
    return f"{plain(duration_s / unit_s)}{unit}"


def plain(number: float) -> str:
    """A number to the last digit that it has, without an exponent: what is read again is the same number."""
    return format(Decimal(repr(number)).normalize(), "f")


def is_mail_address(text: str) -> bool:
    """Whether this can be somebody's address for mail."""
    return _MAIL_ADDRESS.fullmatch(text) is not None


def _quantity(text: object, units: Mapping[str, float], expected: str, most: float, most_in_words: str) -> float:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"expected {expected}, got {_quoted(text)}")
    amount = float(match[1]) * units[match[2]]
    if amount >= most:
        raise ValueError(f"expected less than {most_in_words}, got {_quoted(text)}")
    return amount


def _quoted(value: object) -> str:
    """A value as the file had it, no longer than an error message wants it."""
    words = str(value)
    words = words if len(words) <= _QUOTED_CHARACTERS else f"{words[:_QUOTED_CHARACTERS]}..."
    return f'"{words}"' if isinstance(value, str) else words
