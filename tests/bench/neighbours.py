"""What another contributor notices of somebody who is a burden: his login, his verdict, his job; with and without.

Run from the repository: .venv/bin/python -m tests.bench.neighbours [ROUNDS] [WORDS OF BURDENS ...]

An appliance with two slots, as it is by default, and two contributors. Bob logs in from 127.0.0.2, sends a trivial job
and waits for its result, again and again: first alone, which is the baseline, then beside each thing that Alice can do
to be a burden. A login is from the connection to the reply to PASS, a verdict from the first byte sent to the reply, a
job from that reply to its result. Aim: the median within 1.5 times the baseline, the worst within 3 times or 2 s more.
"""

import contextlib
import ftplib
import io
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from construir_ftp.ftp.users import Users
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.pack import pack
from tests import bench
from tests.support import images, worst
from tests.support.appliance import NAME, PASSWORD, WARM, Appliance
from tests.support.debarchive import DebArchive
from tests.support.flood import Flood
from tests.support.images import job_directory, noise
from tests.system import test_faults as faults

BYSTANDER, ADDRESS = "bob", "127.0.0.2"
# Between two of Bob's rounds; and beside what comes once.
PAUSE_S, LONG_PAUSE_S = 1.0, 5.0
SETTLE_S = 10.0
LONGEST_S = 300.0
# Who puts jobs into the spool side by side: most of it is waiting for the disk.
PUTTING = 8
SESSIONS, CLIENTS, WAITING, LISTED = 64, 300, 10_000, 20_000
WHAT = ("login", "verdict", "job")
HELLO = b"#!/bin/sh\necho hello\n"
LOUD = b"#!/bin/sh\nyes 'a line that nobody reads'\n"


class Taken(msgspec.Struct, frozen=True):
    """Seconds of each of WHAT, once a round."""

    login: list[float]
    verdict: list[float]
    job: list[float]


@contextmanager
def appliance(place: Path) -> Iterator[Appliance]:
    """As it is by default, with two slots, quotas that let Alice send much, and an archive of packages."""
    archive = DebArchive(place / "archive")
    archive.add("sleeper", "sleep 3600")
    limits = '[ftp]\nmax_waiting_jobs = 20000\n[layers]\ntimeout = "60s"\n'
    there = Appliance(place, WARM.replace('"10min"', '"60s"') + limits)
    shape, _ = bench.machine()
    archive.serve(Spool.prepare(there.spool).path, shape.base)
    with there.running():
        Users(there.spool / "users.toml").add(BYSTANDER, PASSWORD)
        yield there


def take(there: Appliance, upload: bytes, rounds: int, pause_s: float = PAUSE_S) -> Taken:
    taken = Taken([], [], [])
    for _ in range(rounds):
        login_s, verdict_s, job_s = _take(there, upload)
        taken.login.append(login_s)
        taken.verdict.append(verdict_s)
        taken.job.append(job_s)
        time.sleep(pause_s)
    return taken


def _take(there: Appliance, upload: bytes) -> tuple[float, float, float]:
    begun = time.monotonic()
    with ftplib.FTP(source_address=(ADDRESS, 0)) as ftp:
        ftp.connect("127.0.0.1", there.port, timeout=LONGEST_S)
        ftp.login(BYSTANDER, PASSWORD)
        logged_in = time.monotonic()
        reply = ftp.storbinary("STOR /queue/bystander.img.zst", io.BytesIO(upload))
        accepted = time.monotonic()
    result = there.spool / "done" / reply.split()[4].rstrip(",") / "result.json"
    while not result.exists():
        assert time.monotonic() - accepted < LONGEST_S, there.log.read_text()[-4000:]
        time.sleep(0.005)
    assert b'"success"' in result.read_bytes(), result.read_text()
    return logged_in - begun, accepted - logged_in, time.monotonic() - accepted


# -- burdens ---------------------------------------------------------------------------------------------------------


@contextmanager
def repeated(action: Callable[[], object], threads: int = 1) -> Iterator[None]:
    """Within, it is done again and again, in so many threads."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, EOFError, ftplib.Error):
                action()

    busy = [threading.Thread(target=repeat, daemon=True) for _ in range(threads)]
    for thread in busy:
        thread.start()
    try:
        time.sleep(SETTLE_S / 2)
        yield
    finally:
        over.set()
        for thread in busy:
            thread.join(LONGEST_S)


@contextmanager
def once(action: Callable[[], object]) -> Iterator[None]:
    """Within, it is done in a thread of its own."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    yield
    thread.join(LONGEST_S)


def sent(there: Appliance, uploads: list[bytes]) -> None:
    """Send all of these, one after the other; whether they are accepted is all the same."""
    with there.session(NAME) as ftp:
        for number, upload in enumerate(uploads):
            with contextlib.suppress(ftplib.Error):
                ftp.storbinary(f"STOR /queue/burden-{number}.img", io.BytesIO(upload))
            time.sleep(0.2)


@contextmanager
def waiting(there: Appliance, upload: Path, count: int) -> Iterator[None]:
    """So many jobs of hers wait; they are gone afterwards.

    One is sent. The others are put into the spool beside it, as the server would, and so they are deleted: by FTP, one
    after the other, either would take minutes for thousands.
    """
    spool, content = Spool.find(there.spool), upload.read_bytes()
    job = there.submit(upload, "waits.img.zst")
    record = next(filter(None, (spool.find_job(state, job) for state in ("queue", "running", "done")))).record()

    def put(number: int) -> None:
        received = spool.receive()
        received.upload.write_bytes(content)
        later = record.received + timedelta(milliseconds=number)
        spool.enqueue(spool.stage(received, msgspec.structs.replace(record, received=later)))

    def remove(waits: Job) -> None:
        with contextlib.suppress(FileNotFoundError):  # it has just been taken
            spool.delete(waits)

    with ThreadPoolExecutor(PUTTING) as threads:
        list(threads.map(put, range(1, count)))
        with there.session(NAME) as ftp:  # the first look at so many takes long, and is no part of any round
            ftp.sendcmd("SITE QUEUE")
        time.sleep(SETTLE_S / 2)
        yield
        own = {name for name, known in spool.records("queue").items() if known and known.contributor == NAME}
        list(threads.map(remove, (Job(spool.state("queue") / name) for name in own)))


@contextmanager
def many_clients(there: Appliance, count: int) -> Iterator[None]:
    """So many sessions, each of which asks for something every second."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(count):
            client = stack.enter_context(ftplib.FTP(source_address=(f"127.0.{1 + number // 50}.9", 0)))
            client.connect("127.0.0.1", there.port, timeout=LONGEST_S)
            client.login()
            clients.append(client)

        def ask() -> None:
            for client in clients:
                client.voidcmd("NOOP")
                time.sleep(1 / count)

        with repeated(ask):
            yield


def listing(there: Appliance) -> None:
    with ftplib.FTP() as ftp:
        ftp.connect("127.0.0.1", there.port, timeout=LONGEST_S)
        ftp.login()
        ftp.retrlines("MLSD /done", len)


def burdens(there: Appliance, place: Path) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """By their names: what there is while it is entered."""
    makers = (faults.bigalloc, faults.full_tables, faults.foreign_journal, faults.crashes_the_kernel)
    faulty: list[bytes] = []
    for make in makers:
        made = place / make.__name__
        made.mkdir()
        faulty.append(images.pack("zstd", make(made).read_bytes()))
    loud = packed(place / "loud", LOUD, "")
    sleeper = packed(place / "installs", HELLO, '[dependencies]\npackages = ["sleeper"]\n')
    plain = packed(place / "plain", HELLO, "")

    def publish_many() -> AbstractContextManager[None]:
        done = there.spool / "done"
        for number in range(LISTED):
            (done / f"20200101T000000Z-{number:04x}-listed").mkdir(exist_ok=True)
        return repeated(lambda: listing(there), 8)

    return {
        "20 faulty images, once": lambda: once(lambda: sent(there, faulty * 5)),
        "faulty images without end": lambda: repeated(lambda: sent(there, faulty * 5)),
        "64 sessions of NOOP": lambda: Flood("127.0.0.1", there.port, sessions=SESSIONS).going_on(),
        "20 slow to judge, once": lambda: once(lambda: sent(there, (worst_uploads() * 10)[:20])),
        "images slow to judge without end": lambda: repeated(lambda: sent(there, worst_uploads()), 8),
        "installs of packages": lambda: repeated(lambda: sent(there, [sleeper.read_bytes()] * 3)),
        "300 clients": lambda: many_clients(there, CLIENTS),
        "10,000 waiting jobs": lambda: waiting(there, plain, WAITING),
        "huge listings": publish_many,
        "huge logs": lambda: waiting(there, loud, 1),
    }


def worst_uploads() -> list[bytes]:
    """Uploads of a few KiB that keep a judge busiest."""
    packed_images = [images.pack("zstd", image) for image in (worst.back_and_forth(), worst.names_without_end())]
    return [*packed_images, *worst.streams().values()]


def packed(place: Path, run_sh: bytes, toml: str) -> Path:
    job = job_directory(place, run_sh)
    (job / "noise").write_bytes(noise(4096))
    if toml:
        (job / "construir.toml").write_text(toml)
    target = place.with_suffix(".img.zst")
    pack.pack(job, target, 2**20)
    return target


def print_beside(name: str, alone: Taken, beside: Taken) -> None:
    for what in WHAT:
        before, after = getattr(alone, what), getattr(beside, what)
        ratio = statistics.median(after) / statistics.median(before)
        is_near = max(after) <= max(3 * max(before), max(before) + 2)
        print(
            f"{name:32}{what:9}{statistics.median(before) * 1000:9.0f}{max(before) * 1000:9.0f}"
            f"{statistics.median(after) * 1000:9.0f}{max(after) * 1000:9.0f}{ratio:8.2f}"
            f"  {'' if ratio <= 1.5 else 'median '}{'' if is_near else 'worst '}".rstrip(),
            flush=True,
        )


def main(rounds: int, wanted: list[str]) -> None:
    _, reason = bench.machine()
    print(f"what bob notices of alice, ms, {rounds} rounds; two slots; {reason}; last column: which aim is missed")
    print(f"{'':41}{'alone':>9}{'worst':>9}{'beside':>9}{'worst':>9}{'ratio':>8}")
    with bench.workplace() as place, appliance(place) as there:
        upload = packed(place / "bystander", HELLO, "").read_bytes()
        take(there, upload, 2)
        time.sleep(SETTLE_S)
        for name, burden in burdens(there, place).items():
            if wanted and not any(words in name for words in wanted):
                continue
            pause_s = LONG_PAUSE_S if "once" in name else PAUSE_S
            alone = take(there, upload, rounds, pause_s)
            with burden():
                print_beside(name, alone, take(there, upload, rounds, pause_s))
            settle(there)


def settle(there: Appliance) -> None:
    """Wait until no job waits or runs."""
    deadline = time.monotonic() + LONGEST_S
    while any(there.states()[state] for state in ("queue", "running")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(SETTLE_S)


if __name__ == "__main__":
    numbers = [word for word in sys.argv[1:] if word.isdecimal()]
    main(int(numbers[0]) if numbers else 10, [word for word in sys.argv[1:] if not word.isdecimal()])
