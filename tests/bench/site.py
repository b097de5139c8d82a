"""The site: what one change costs beside a hundred thousand results, in processor time; the aim is 50 ms.

(a) is what reading the directory of the results once costs, which who polls has to do for each change; (b) is reading
every result anew, as a site without a memory does, by the processor time of a start. Pages are there already.
Run from the repository: .venv/bin/python -m tests.bench.site [ROUNDS [RESULTS]]
"""

import itertools
import os
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from construir_ftp.config import Config
from construir_ftp.jobs.result import Result, encode
from construir_ftp.jobs.spool import Spool
from construir_ftp.site.pages import Pages, address, ftp_server
from construir_ftp.site.publisher import Publisher
from construir_ftp.site.tree import Tree
from tests import bench
from tests.bench import Line, Row
from tests.support import sites

CONTRIBUTORS = 50
KINDS = 1000
DAYS = 30
PAGE_BYTES = 8192


def made_up(number: int) -> Result:
    """One of a month of results."""
    published = datetime.now(UTC) - timedelta(days=DAYS * (1 - number / KINDS))
    times: dict[str, Any] = {
        name: published - timedelta(seconds=ago) for name, ago in (("received", 99), ("booted", 70), ("ended", 1))
    }
    status = "success" if number % 7 else "failed"
    contributor = f"contributor{number % CONTRIBUTORS}"
    return sites.result(contributor=contributor, name=f"job{number % 20}", status=status, published=published, **times)


def fill(spool: Spool, config: Config, results: int) -> None:
    """Have so many results, and a page of each; their files are shared by many."""
    kinds = spool.path / "kinds"
    kinds.mkdir()
    tree = Tree(config.site_path())
    tree.prepare(spool.state("done"))
    tree.note_version(Pages(config.site.title, address(config), ftp_server(config)).version())
    for number in range(KINDS):
        (kinds / f"{number}.html").write_bytes(bytes(PAGE_BYTES))
        (kinds / f"{number}.json").write_bytes(encode(made_up(number)))
    for number in range(results):
        place = spool.state("done") / f"20261122T104102Z-{number:06x}-job"
        place.mkdir()
        os.link(kinds / f"{number * KINDS // results}.json", place / "result.json")
        os.link(kinds / f"{number * KINDS // results}.html", tree.path / "jobs" / f"{place.name}.html")


def processor_s(action: Callable[[], object]) -> float:
    """How many seconds of this process's processor time it takes."""
    begun_s = time.process_time()
    action()
    return time.process_time() - begun_s


def rows(spool: Spool, publisher: Publisher) -> list[Row]:
    """A change in one result, and what it is compared with."""
    names = (f"20261129T104102Z-{number:06x}-new" for number in itertools.count())

    def come() -> float:
        sites.put(spool, sites.result(next(names), published=datetime.now(UTC), contributor="contributor1"))
        return processor_s(publisher.look)

    def go() -> float:
        spool.delete(spool.jobs("done")[-1])
        return processor_s(publisher.look)

    return [
        Row("(a) the directory of results, read once", lambda: processor_s(lambda: os.listdir(spool.state("done")))),  # noqa: PTH208 - names alone
        Row("a result comes", come, "50 ms"),
        Row("a result goes", go, "50 ms"),
        Row("nothing changes", lambda: processor_s(publisher.look)),
    ]


def main(rounds: int, results: int) -> None:
    with bench.workplace() as place:
        measure(place, rounds, results)


def measure(place: Path, rounds: int, results: int) -> None:
    spool = Spool.prepare(place / "spool")
    config = sites.config(spool, place)
    fill(spool, config, results)
    with closing(Publisher(spool, config)) as publisher:
        whole_s = processor_s(lambda: sites.settle(publisher, float("inf")))
        lines = bench.take_turns(rows(spool, publisher), rounds)
    title = f"processor time of one change beside {results} results"
    bench.print_table(title, [*lines, Line("(b) every result read anew", [whole_s])])


if __name__ == "__main__":
    main(*bench.counts(21, 100_000))
