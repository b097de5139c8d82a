"""What the jail costs: QEMU's start to its guest's first instruction, and the judge of an upload, jailed and not.

Run from the repository: .venv/bin/python -m tests.bench.jail [ROUNDS]
"""

from collections.abc import Callable
from pathlib import Path

from construir_ftp.config import GateSection
from construir_ftp.intake import live_check
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.pack import pack
from tests import bench
from tests.bench import Line, Row, bare
from tests.support.places import JOBS


def judge_s(upload: Path) -> float:
    with JudgePool(GateSection()) as judges:
        return bench.timed(lambda: live_check.check_file(upload, judges))


def unjailed(take: Callable[[], float]) -> Callable[[], float]:
    """The same without a jail."""

    def take_unjailed() -> float:
        with bare.no_jail():
            return take()

    return take_unjailed


def compare(title: str, what: str, take: Callable[[], float], rounds: int) -> None:
    """Both ways in turn, so that they are pairs; and what is between them."""
    rows = [Row(f"(a) {what}, not jailed", unjailed(take)), Row(f"{what}, jailed", take)]
    without, jailed = bench.take_turns(rows, rounds)
    costs = [b - a for a, b in zip(without.values, jailed.values, strict=True)]
    bench.print_table(title, [without, jailed, Line("the jail: the difference of each pair", costs)])


def main(rounds: int) -> None:
    shape, reason = bench.machine()
    with bench.workplace() as place:
        kernel, upload = bare.tiny_kernel(place), place / "hello.img.zst"
        pack.pack(JOBS / "hello", upload, 2**20)
        what = "QEMU start to first guest instruction"
        compare(f"a machine; {reason}", what, lambda: bare.first_instruction_s(shape, kernel), rounds)
        compare("the judge of an upload", "a small job judged", lambda: judge_s(upload), rounds)


if __name__ == "__main__":
    main(*bench.counts(50))
