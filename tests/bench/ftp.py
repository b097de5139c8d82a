"""Our FTP server against vsftpd, pure-ftpd and proftpd, beside each other on loopback and on one file system.

    python -m tests.bench.ftp [--size 1GiB] [--rounds 3] [--only WORDS]

For each row every server's figure, and ours as a multiple of the best peer's: above 1 is in our favour. Beside it how
long another client, who does nothing but NOOP, had to wait meanwhile. WORDS are part of a row's name, and --only may be
given several times. What has to be known of a row:

- An upload to ours is a job: before the 226 it is checked from end to end, by a jailed process, and on stable storage.
  The peers check nothing, and what they have not written yet is dropped after each round.
- A large upload is a raw ext4 image full of noise. A small one is a real job too, a compressed image of about 4 KiB.
  How quickly this disk takes in a large one is printed first: no server that waits for it can be quicker.
- Small files are not curl's: version 7.88 sleeps a second where the answer to EPSV comes at once.
- Passwords cost the same processor time everywhere; see ftp_peers. Downloads, listings and idle sessions are anyone's.
- The processor time is that of all the server's processes, ours with its judges; and that of the clients. It tells what
  a row is bound by: where a client takes all of one processor, no server is quicker.
- vsftpd has no MLSD: there it is LIST. A directory is listed for the "first" time since the server was started;
  "anew", after another result has come and gone; and "again", with nothing changed. Ours has read the results that it
  found some seconds after its start, and of a listing that has changed keeps the lines of those that were there; theirs
  is always made from the beginning.
"""

import argparse
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from construir_ftp.units import Size
from tests import bench
from tests.bench import ftp_bystander, ftp_clients, ftp_material
from tests.bench.ftp_clients import crowd_s, fetching, logging_in, storing
from tests.bench.ftp_material import RESULTS, SMALL_FILES, Material
from tests.bench.ftp_peers import Place
from tests.bench.ftp_servers import Server, install, running

LOGINS, LOGINS_AT_ONCE = 40, 4
CROWDS = (100, 300)
IDLE = 300
# Each costs a tenth of a second of all processors, with each of four servers.
_MOST_LOGINS = 300
SMALL_STORES = 40
# A directory that has not changed for a moment: see _SETTLED_NS in listing.
SETTLED_S = 0.3
# Ours begins to read the listing of its results a second after its start.
STARTED_S = 5.0


@dataclass(frozen=True)
class Contest:
    """A row: what to measure, in which unit, whether more is better; how many uploads it leaves; its most rounds."""

    name: str
    unit: str
    take: Callable[[Server], float]
    is_more_better: bool = True
    uploads: int = 0
    most_rounds: int = sys.maxsize


@dataclass(frozen=True)
class Outcome:
    """What a server came to in a row, how long the bystander waited meanwhile, in milliseconds, and the processor time
    that a round took the server and its clients, in seconds.
    """

    server: str
    figure: float
    waits_ms: Sequence[float]
    server_s: float
    clients_s: float


# -- rows ------------------------------------------------------------------------------------------------------


def per_second(amount: float, take_s: Callable[[Server], float]) -> Callable[[Server], float]:
    """How much of `amount` there is in a second of what is timed."""
    return lambda server: amount / take_s(server)


def large_contests(material: Material) -> Iterator[Contest]:
    """One large file at a time."""
    size_mb = material.large.stat().st_size / 1e6
    programs = {
        "curl": (ftp_clients.curl_store_s, ftp_clients.curl_fetch_s),
        "lftp": (ftp_clients.lftp_store_s, ftp_clients.lftp_fetch_s),
    }
    for tls in (False, True):
        for program, (store_s, fetch_s) in programs.items():
            how = f"{size_mb / 1e3:.3g} GB, {program}, {'TLS' if tls else 'plain'}"
            store, fetch = partial(store_s, files=[material.large], tls=tls), partial(fetch_s, tls=tls)
            yield Contest(f"STOR {how}", "MB/s", per_second(size_mb, store), uploads=1)
            yield Contest(f"RETR {how}", "MB/s", per_second(size_mb, partial(fetch, path=material.large_path)))


def small_contests(material: Material) -> Iterator[Contest]:
    """Many small files, one after the other in one session, and as many clients at once."""
    count = len(material.small)
    paths = [f"{material.small_path}{number}" for number in range(SMALL_FILES)]
    fetch = partial(ftp_clients.fetch_in_turn_s, paths=paths)
    store = partial(ftp_clients.store_in_turn_s, files=material.small)
    yield Contest("RETR 4 KiB files", "files/s", per_second(SMALL_FILES, fetch))
    yield Contest("STOR 4 KiB files", "files/s", per_second(count, store), uploads=count)
    content = material.small[0].read_bytes()
    for count in CROWDS:
        yield Contest(f"RETR by {count} clients at once", "s", partial(_crowd_fetches_s, count, material), False)
        store = partial(_crowd_stores_s, count, content)
        yield Contest(f"STOR by {count} clients at once", "s", store, False, count, _MOST_LOGINS // count)


def _crowd_fetches_s(count: int, material: Material, server: Server) -> float:
    return crowd_s(count, fetching(server, f"{material.small_path}0"))


def _crowd_stores_s(count: int, content: bytes, server: Server) -> float:
    return crowd_s(count, storing(server, content))


def session_contests() -> Iterator[Contest]:
    """Sessions that transfer nothing."""

    def log_in_s(server: Server) -> float:
        return crowd_s(LOGINS, logging_in(server), LOGINS_AT_ONCE)

    def idle_mib(server: Server) -> float:
        return ftp_clients.memory_bytes(server, IDLE) / 2**20

    yield Contest("logins", "per s", per_second(LOGINS, log_in_s))
    yield Contest(f"memory of {IDLE} idle sessions", "MiB", idle_mib, False)


def listing_contests(place: Place) -> Iterator[Contest]:
    """A directory with very many results."""

    def list_ms(server: Server) -> float:
        return bench.timed(lambda: ftp_clients.curl_list(server, "/done/")) * 1000

    def again_ms(server: Server) -> float:
        list_ms(server)
        return list_ms(server)

    def anew_ms(server: Server) -> float:
        change = place.spool / "done" / "change"
        change.mkdir()
        change.rmdir()
        time.sleep(SETTLED_S)
        return list_ms(server)

    def first_ms(server: Server) -> float:
        time.sleep(SETTLED_S)
        return list_ms(server)

    yield Contest(f"MLSD of {RESULTS} results, first", "ms", first_ms, False, most_rounds=1)
    yield Contest(f"MLSD of {RESULTS} results, anew", "ms", anew_ms, False)
    yield Contest(f"MLSD of {RESULTS} results, again", "ms", again_ms, False)


def check_listings(place: Place, servers: Sequence[Server]) -> None:
    """A listing that leaves something out would be a quick one."""
    there = [path.name for path in (place.spool / "done").iterdir()]
    output = place.path / "listing"
    for server in servers:
        ftp_clients.curl_list(server, "/done/", output)
        listed = {line.split()[-1] for line in output.read_text().splitlines()}
        assert listed >= set(there), f"{server.name} lists {len(listed)} of {len(there)}"


# -- running them ----------------------------------------------------------------------------------------------


def run(contest: Contest, servers: Sequence[Server], rounds: int) -> list[Outcome]:
    """Each server in turn, for some rounds."""
    waits_ms: dict[str, list[float]] = {server.name: [] for server in servers}
    cpu_s: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}

    def take(server: Server) -> float:
        # What another server, or the round before, has left to be written is not to be waited for now.
        os.sync()
        with ftp_bystander.watching(server.port) as waited:
            before = server.cpu_s(), clients_cpu_s()
            figure = contest.take(server)
            cpu_s[server.name].append((server.cpu_s() - before[0], clients_cpu_s() - before[1]))
        waits_ms[server.name] += waited
        clear(server, contest.uploads)
        return figure

    def outcome(line: bench.Line) -> Outcome:
        server_s, clients_s = map(statistics.median, zip(*cpu_s[line.name], strict=True))
        return Outcome(line.name, statistics.median(line.values), waits_ms[line.name], server_s, clients_s)

    rows = [bench.Row(server.name, partial(take, server)) for server in servers]
    return [outcome(line) for line in bench.take_turns(rows, min(rounds, contest.most_rounds))]


def clients_cpu_s() -> float:
    """Processor time, in seconds, that this process and those it has waited for have taken: the clients are these."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(contest: Contest, servers: Sequence[Server], rounds: int) -> str:
    """The row's line of the summary. Where a client fails, or a server leaves one hanging, the others go on."""
    try:
        return report(contest, run(contest, servers, rounds))
    except (subprocess.SubprocessError, OSError, AssertionError) as error:
        for server in servers:
            empty(server)
        return f"{contest.name:44}  not measured: {error!r:.200}"


def clear(server: Server, expected: int) -> None:
    """Delete what was sent; all of it must have been taken in."""
    there = len(list(server.uploads.iterdir()))
    assert there == expected, f"{server.name} has {there} uploads of {expected}"
    empty(server)


def empty(server: Server) -> None:
    """Delete what was sent."""
    for path in server.uploads.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def disk_mb_s(place: Place, content: Path) -> float:
    """How quickly a file's content is written beside it, and put on stable storage, by a program that does no more."""
    target = place.path / "written"
    os.sync()
    try:
        argv = ["dd", f"if={content}", f"of={target}", "bs=1M", "conv=fsync", "status=none"]
        return content.stat().st_size / 1e6 / bench.timed(lambda: subprocess.run(argv, check=True))
    finally:
        target.unlink()


def report(contest: Contest, outcomes: Sequence[Outcome]) -> str:
    """Print a row; return its line of the summary."""
    ours, *peers = outcomes
    best = (max if contest.is_more_better else min)(peer.figure for peer in peers)
    ratio = ours.figure / best if contest.is_more_better else best / ours.figure
    print(f"\n{contest.name}, {contest.unit}, {'more' if contest.is_more_better else 'less'} is better")
    for outcome in outcomes:
        verdict = f"{ratio:8.2f} x best peer" if outcome is ours else " " * 20
        spent = f"cpu: server {outcome.server_s:5.2f} s, clients {outcome.clients_s:5.2f} s"
        print(
            f"  {outcome.server:10}{outcome.figure:10.1f}{verdict}    {spent}    {waits(outcome.waits_ms)}", flush=True
        )
    return f"{contest.name:44}{ratio:8.2f}    {waits(ours.waits_ms)}"


def waits(waits_ms: Sequence[float]) -> str:
    """Half, 99 in 100, and the worst of the bystander's waits."""
    ordered = sorted(waits_ms)
    if not ordered:
        return "no NOOP was answered"
    half, most, worst = (ordered[round((len(ordered) - 1) * part)] for part in (0.5, 0.99, 1))
    return f"NOOP p50 {half:6.1f}  p99 {most:6.1f}  max {worst:6.1f} ms of {len(ordered)}"


def main(size_bytes: int, rounds: int, only: Sequence[str]) -> None:
    with bench.workplace() as path:
        place = Place(path)
        ports = install(place)
        summary = []
        with running(place, ports) as servers:
            material = ftp_material.prepare(place, size_bytes, SMALL_STORES)
            disk = statistics.median(disk_mb_s(place, material.large) for _ in range(rounds))
            print(f"dd writes and syncs the large file at {disk:.0f} MB/s", flush=True)
            contests = [*large_contests(material), *small_contests(material), *session_contests()]
            summary += [measure(contest, servers, rounds) for contest in chosen(contests, only)]
        if listings := chosen(listing_contests(place), only):
            ftp_material.add_results(place)
            with running(place, ports) as servers:
                time.sleep(STARTED_S)
                summary += [measure(contest, servers, rounds) for contest in listings]
                check_listings(place, servers)
    print(f"\nours as a multiple of the best peer's, above 1 is better; medians of {rounds}; and who waits for us")
    print(*summary, sep="\n")


def chosen(contests: Iterable[Contest], only: Sequence[str]) -> list[Contest]:
    """Those that have any of the words in their names; all, if there are no words."""
    return [contest for contest in contests if not only or any(words in contest.name for words in only)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ftp", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=Size.parse, default=Size.parse("1GiB"), help="of a large file (default: 1GiB)")
    parser.add_argument("--rounds", type=int, default=3, help="of each row (default: 3)")
    parser.add_argument("counts", type=int, nargs="*", help="as other benchmarks take them: the first is the rounds")
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="rows with these in their name")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    # The servers have sessions of their own, and would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(int(given.size), next(iter(given.counts), given.rounds), given.only)
