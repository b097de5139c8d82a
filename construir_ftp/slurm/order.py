"""What Slurm is asked for when a pilot is to be started: the words of sbatch(1)."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from construir_ftp.surroundings import SlurmSection


class Order(NamedTuple):
    """One pilot. `title` is what Slurm lists it as, `comment` tells people whose it is, `log` is where it writes."""

    title: str
    comment: str
    log: Path
    command: Sequence[str]


def sbatch_args(section: SlurmSection, order: Order) -> list[str]:
    """The command that asks for it."""
    return [
        "sbatch",
        "--parsable",
        *_limit_args(section),
        *_life_args(section),
        f"--job-name={order.title}",
        f"--comment={order.comment}",
        f"--output={order.log}",
        "--open-mode=append",
        # Where this command runs need not be there on the node.
        "--chdir=/",
        *section.options,
        # SIGTERM is for the node, so no shell may stand before it.
        f"--wrap=exec {shlex.join(order.command)}",
    ]


def _limit_args(section: SlurmSection) -> list[str]:
    chosen = {"partition": section.partition, "account": section.account}
    return [
        *(f"--{option}={value}" for option, value in chosen.items() if value),
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={section.processors}",
        f"--mem={math.ceil(section.memory / 2**20)}M",
    ]


def _life_args(section: SlurmSection) -> list[str]:
    """How it ends: SIGTERM before the time limit, and anew elsewhere if its computer fails or is taken from it."""
    return [f"--time={math.ceil(section.time / 60)}", f"--signal=B:TERM@{math.ceil(section.drain)}", "--requeue"]
