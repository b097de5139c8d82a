"""Benchmarks: medians, and ratios against a baseline measured in the same run; nothing here passes or fails.

    python -m tests.bench              all of them, one after the other, for hours
    python -m tests.bench.NAME         one; the numbers it takes after its name say how often

Figures mean something only on a host that does nothing else. What all of them share is here: taking turns, the table,
and the machine of an appliance without configuration.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from construir_ftp.config import Config
from construir_ftp.image import baseimage
from construir_ftp.machine import accelerator
from construir_ftp.machine.shape import Shape

# A job that says something before all else: what is before that is the machine's time, and none of its own.
FIRST_LINE = b"#!/bin/sh\necho first line\n"


class Row(msgspec.Struct, frozen=True):
    """What is to be measured: its name, how to take it once, what the aim is, and how often at most (else as often as
    the others).
    """

    name: str
    take: Callable[[], float]
    aim: str = ""
    most: int = sys.maxsize


class Line(msgspec.Struct, frozen=True):
    """A line of a table: what was taken. A name that begins with a letter in brackets is a baseline's: the others are
    printed as multiples of it.
    """

    name: str
    values: Sequence[float]
    aim: str = ""


def counts(*defaults: int) -> list[int]:
    """The numbers on the command line; where one is missing, its default."""
    given = [int(word) for word in sys.argv[1:]]
    return [*given[: len(defaults)], *defaults[len(given) :]]


def machine() -> tuple[Shape, str]:
    """What a job gets of an appliance without configuration; and under which accelerator, in words."""
    config = Config()
    base = baseimage.find(config.images_path(), config.images.default)
    choice = accelerator.choose(config.machine, config.images_path(), base)
    return Shape.of(config.machine, base, choice.accelerator, int(config.gate.max_image)), choice.reason


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory for what a benchmark needs, on a disk and not in memory; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="construir-bench-", dir="/var/tmp") as name:
        yield Path(name)


def timed(action: Callable[[], object]) -> float:
    """How many seconds it takes."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def take_turns(rows: Sequence[Row], rounds: int) -> list[Line]:
    """Take each row, in turn, so that whatever else the host does meanwhile hits all alike."""
    taken: list[list[float]] = [[] for _ in rows]
    for number in range(rounds):
        for row, values in zip(rows, taken, strict=True):
            if number < row.most:
                values.append(row.take())
    return [Line(row.name, values, row.aim) for row, values in zip(rows, taken, strict=True)]


def print_table(title: str, lines: Sequence[Line], unit: str = "ms", scale: float = 1000.0) -> None:
    """Medians, in `unit`, which is what was taken times `scale`; and as multiples of each baseline."""
    medians = [statistics.median(line.values) for line in lines]
    marks = {line.name[:3]: median for line, median in zip(lines, medians, strict=True) if line.name.startswith("(")}
    print(title)
    print(f"{'':58}{unit:>11}" + "".join(f"{'/ ' + mark:>9}" for mark in marks) + "  rounds  aim")
    for line, median in zip(lines, medians, strict=True):
        ratios = "".join(f"{_ratio(median / baseline):>9}" for baseline in marks.values())
        print(f"{line.name:58}{median * scale:11.1f}{ratios}{len(line.values):8}  {line.aim}".rstrip())


def _ratio(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if 0 < ratio < 0.1 else f"{ratio:.2f}"
