"""One campaign: an appliance on its disk, who sends jobs to it, what goes wrong meanwhile, the account at the end."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from construir_ftp import files
from construir_ftp.config import Config
from tests.campaign import checker, clock, contributors, processes
from tests.campaign.chaos import Chaos
from tests.campaign.checker import View
from tests.campaign.disk import Disk, Tmpfs
from tests.campaign.images import Images
from tests.campaign.ledger import Ledger
from tests.campaign.news import OPERATOR, News, users_file
from tests.campaign.releases import Releases
from tests.campaign.world import World
from tests.support import ports
from tests.support.appliance import Appliance, construir
from tests.support.farm import LEASE_S, Node, wait_until
from tests.support.receivers import smtp_server, web_server
from tests.support.tlsclient import make_certificate

log = logging.getLogger("campaign")

NODES = ("far", "farther")
_IMAGE = "bookworm-amd64"
# For an appliance to start, and for the next job to end once nothing goes wrong any more, however busy the host is.
_LONG_S = 300.0
_CONFIG = """
[spool]
min_free = "64MiB"
[machine]
timeout = "2min"
boot_timeout = "60s"
scratch = "256MiB"
[images]
path = "{images}"
[runner]
slots = 2
grace = "500ms"
[nodes]
lease = "{lease_s:g}s"
renew = "500ms"
admit = ["*"]
[tls]
certificate = "{certificate}"
key = "{key}"
[notify]
webhook = "{webhook}"
operators = ["{operator}"]
smtp = "127.0.0.1:{smtp_port}"
smtp_tls = "none"
sender = "construir@example.org"
max_per_hour = 100000
"""


class Account(NamedTuple):
    """What a campaign came to. `broken` has every promise that was not kept, in words."""

    seed: str
    duration_s: float
    uploads: Counter[str]
    results: Counter[str]
    chaos: Counter[str]
    resident_mib: dict[str, float]
    descriptors: dict[str, int]
    broken: list[str]

    def text(self) -> str:
        """It for a person."""
        counts = {"uploads": self.uploads, "results": self.results, "chaos": self.chaos}
        lines = [f"campaign: seed {self.seed}, {self.duration_s:.0f} s"]
        for what, count in counts.items():
            told = ", ".join(f"{name} {number}" for name, number in sorted(count.items()))
            lines.append(f"campaign: {what} {sum(count.values())}: {told}")
        for part, mib in self.resident_mib.items():
            lines.append(f"campaign: {part} ends with {mib:.0f} MiB resident, {self.descriptors[part]} descriptors")
        lines += [f"campaign: BROKEN: {fault}" for fault in self.broken]
        return "\n".join([*lines, f"campaign: broken promises: {len(self.broken)}"])


class Kind(NamedTuple):
    """What kind of appliance it is: where its clock jumps to, if it does; whether it leaves all jobs to its nodes."""

    clock_offsets_s: Sequence[int]
    is_front_only: bool

    @classmethod
    def of(cls, seed: str) -> Self:
        """As the seed says."""
        chance = random.Random(f"{seed} kind")
        offsets_s = chance.choice(((), clock.NEAR_S, clock.FAR_S))
        return cls(offsets_s if clock.can_jump() else (), chance.random() < 0.3)

    def are_all_told(self) -> bool:
        """Whether each result is news: what seems to have ended more than a week ago is none (docs/notify.md)."""
        return self.clock_offsets_s != clock.FAR_S


def _config(place: Path, images: Images, news: News) -> str:
    certificate, key = make_certificate(place)
    return _CONFIG.format(
        certificate=certificate,
        key=key,
        lease_s=LEASE_S,
        images=images.path,
        webhook=news.hooks.url,
        operator=OPERATOR,
        smtp_port=news.mailbox.port,
    )


@contextmanager
def _world(place: Path, kind: Kind, senders: int) -> Iterator[World]:
    """All of it, running, with so many contributors."""
    with ExitStack() as stack:
        disk, temporary, images = Disk(place), Tmpfs(place), Images(place, Config().images_path() / _IMAGE)
        news = News(stack.enter_context(web_server()), stack.enter_context(smtp_server()))
        appliance = Appliance(place, _config(place, images, news), _LONG_S)
        # One port for all its lives: clients come back to where it was.
        appliance.spool, appliance.port = disk.root / "spool", ports.free()
        appliance.spool.mkdir()
        users = users_file(map(contributors.name, range(senders)))
        files.replace_durably(appliance.spool / "users.toml", users.encode())
        nodes = [Node(appliance, name) for name in NODES]
        its_clock = clock.Clock(place, kind.clock_offsets_s) if kind.clock_offsets_s else None
        world = World(appliance, nodes, disk, temporary, images, Releases(place), news, its_clock)
        for one in world.programs:
            one.program = world.program()
        stack.enter_context(appliance.running())
        if kind.is_front_only:
            construir("node", "drain", "local", f"--spool={appliance.spool}", check=True)
        for one in nodes:
            stack.callback(one.end)
            one.launch()
        for one in nodes:
            appliance.wait_until_logged(f"node {one.name} is there")
        # By a clock that jumps before news has first looked, what has just ended seems to be old.
        wait_until((appliance.spool / "news.json").exists, appliance.log.read_text)
        yield world


class Length(NamedTuple):
    """How long an appliance is harmed, how often at most, and how many contributors send meanwhile."""

    duration_s: float
    most_acts: int | None
    senders: int


def run(place: Path, seed: str, length: Length) -> Account:
    """Harm an appliance for so long, let it come to rest, and look.

    `place` is empty, and the caller in a mount namespace of its own.
    """
    kind = Kind.of(seed)
    log.info("seed %s: %s", seed, kind)
    began_s = time.monotonic()
    with _world(place, kind, length.senders) as world, closing(Ledger(place / "ledger.jsonl")) as ledger:
        chaos = _harm(place, seed, length, world, ledger)
        _rest(world.appliance)
        with closing(View(world.appliance.port)) as view:
            seen = list(view.results(place))
        world.news.wait({one.id for one in seen})
        resident_mib, descriptors = _sizes(world.appliance)
        _end(world)
        left = list(_left(world.appliance))
        world.disk.unmount()
        world.temporary.unmount()
    owners = checker.owners(ledger.entries, seen)
    broken = [*checker.violations(ledger.entries, seen), *world.news.violations(owners, kind.are_all_told()), *left]
    results = Counter(str(one.result.get("status")) for one in seen)
    lasted_s = time.monotonic() - began_s
    return Account(seed, lasted_s, ledger.outcomes(), results, chaos, resident_mib, descriptors, broken)


def _sizes(appliance: Appliance) -> tuple[dict[str, float], dict[str, int]]:
    """What each part has in memory, and open."""
    parts = sorted(appliance.parts().items())
    resident_mib = {name: processes.resident_bytes(pid) / 2**20 for name, pid in parts}
    return resident_mib, {name: processes.descriptors(pid) for name, pid in parts}


def _end(world: World) -> None:
    """Stop all, and see that nothing of them goes on."""
    roots = [one.process for one in world.programs]
    everything = [pid for root in roots if root is not None for pid in processes.descendants(root.pid)]
    for node in world.nodes:
        node.stop()
    world.appliance.stop()
    processes.gone(everything)


def _harm(place: Path, seed: str, length: Length, world: World, ledger: Ledger) -> Counter[str]:
    stop_sending, stop_harming = threading.Event(), threading.Event()
    desks = place / "desks"
    desks.mkdir()
    all_of_them = [
        contributors.Contributor(number, seed, world.appliance.port, desks, ledger, stop_sending)
        for number in range(length.senders)
    ]
    chaos = Chaos(seed, world, length.most_acts, stop_harming)
    for thread in (*all_of_them, chaos):
        thread.start()
    chaos.join(length.duration_s)
    stop_harming.set()
    chaos.join()
    stop_sending.set()
    for thread in all_of_them:
        thread.join()
    if chaos.failure is not None:
        raise chaos.failure
    chaos.revive_nodes()
    return chaos.done


def _rest(appliance: Appliance) -> None:
    """Wait until no job waits or runs."""
    left, ended_s = _unfinished(appliance), time.monotonic()
    while left:
        assert time.monotonic() < ended_s + _LONG_S, f"{left} jobs don't end; see {appliance.log}"
        time.sleep(1)
        if (unfinished := _unfinished(appliance)) != left:
            left, ended_s = unfinished, time.monotonic()


def _unfinished(appliance: Appliance) -> int:
    """How many jobs wait or run; -1 if the server is just being started again."""
    try:
        with closing(View(appliance.port)) as view:
            return view.unfinished()
    except (OSError, EOFError):
        return -1


def _left(appliance: Appliance) -> Iterator[str]:
    """What is left in the spool once it has ended."""
    for state in ("queue", "running", "trash"):
        yield from (f"left in {state}/: {entry.name}" for entry in (appliance.spool / state).iterdir())
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    yield from (f"left mounted: {line}" for line in mounts if str(appliance.spool) in line)
