"""One campaign: an appliance on its disk, who sends jobs to it, what goes wrong meanwhile, the account at the end."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from construir_ftp import files
from tests.campaign import contributors, processes
from tests.campaign.chaos import Chaos
from tests.campaign.checker import View, untold, violations
from tests.campaign.disk import Disk
from tests.campaign.ledger import Ledger
from tests.support import ports
from tests.support.appliance import Appliance
from tests.support.farm import LEASE_S, Node, node
from tests.support.ftpclient import users_text
from tests.support.receivers import Hooks, web_server
from tests.support.tlsclient import make_certificate

log = logging.getLogger("campaign")

CONTRIBUTORS = 30
NODES = ("far", "farther")
# For the next job to end, once nothing goes wrong any more, however busy the host is.
_LONG_S = 300.0
# For the next news to come, once all jobs have ended.
_TELLING_S = 90.0
_CONFIG = """
[spool]
min_free = "64MiB"
[machine]
timeout = "2min"
boot_timeout = "60s"
scratch = "256MiB"
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


@contextmanager
def _appliance(place: Path, disk: Disk, webhook: str) -> Iterator[Appliance]:
    certificate, key = make_certificate(place)
    config = _CONFIG.format(certificate=certificate, key=key, lease_s=LEASE_S, webhook=webhook)
    appliance = Appliance(place, config)
    # One port for all its lives: clients come back to where it was.
    appliance.spool, appliance.port = disk.root / "spool", ports.free()
    appliance.spool.mkdir()
    names = map(contributors.name, range(CONTRIBUTORS))
    files.replace_durably(appliance.spool / "users.toml", users_text(*names).encode())
    with appliance.running():
        yield appliance


def run(place: Path, seed: str, duration_s: float) -> Account:
    """Harm an appliance for so long, let it come to rest, and look.

    `place` is empty, and the caller in a mount namespace of its own.
    """
    log.info("seed %s", seed)
    began_s = time.monotonic()
    disk = Disk(place)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(place / "ledger.jsonl")))
        hooks = stack.enter_context(web_server())
        appliance = stack.enter_context(_appliance(place, disk, hooks.url))
        nodes = [stack.enter_context(node(appliance, name)) for name in NODES]
        chaos = _harm(place, seed, duration_s, (appliance, nodes), disk, ledger)
        _rest(appliance)
        with closing(View(appliance.port)) as view:
            seen = list(view.results(place))
        told = _told(hooks, {one.id for one in seen})
        resident_mib, descriptors = _sizes(appliance)
        _end(appliance, nodes)
    broken = [*violations(ledger.entries, seen), *untold(told, seen), *_left(appliance)]
    disk.unmount()
    results = Counter(str(one.result.get("status")) for one in seen)
    lasted_s = time.monotonic() - began_s
    return Account(seed, lasted_s, ledger.outcomes(), results, chaos, resident_mib, descriptors, broken)


def _sizes(appliance: Appliance) -> tuple[dict[str, float], dict[str, int]]:
    """What each part has in memory, and open."""
    parts = sorted(appliance.parts().items())
    resident_mib = {name: processes.resident_bytes(pid) / 2**20 for name, pid in parts}
    return resident_mib, {name: processes.descriptors(pid) for name, pid in parts}


def _told(hooks: Hooks, expected: set[str]) -> set[str]:
    """The ids of the jobs whose end was told, once all are or nobody tells any more."""
    told, changed_s = _jobs(hooks), time.monotonic()
    while not expected <= told and time.monotonic() < changed_s + _TELLING_S:
        time.sleep(1)
        if (now := _jobs(hooks)) != told:
            told, changed_s = now, time.monotonic()
    return told


def _jobs(hooks: Hooks) -> set[str]:
    return {event["job"] for event in hooks.events() if event["kind"] == "job"}


def _end(appliance: Appliance, nodes: list[Node]) -> None:
    """Stop all, and see that nothing of them goes on."""
    roots = (*(one.process for one in nodes), appliance.process)
    everything = [pid for root in roots if root is not None for pid in processes.descendants(root.pid)]
    for one in nodes:
        one.stop()
    appliance.stop()
    processes.gone(everything)


def _harm(
    place: Path, seed: str, duration_s: float, farm: tuple[Appliance, list[Node]], disk: Disk, ledger: Ledger
) -> Counter[str]:
    appliance, nodes = farm
    stop_sending, stop_harming = threading.Event(), threading.Event()
    desks = place / "desks"
    desks.mkdir()
    senders = [
        contributors.Contributor(number, seed, appliance.port, desks, ledger, stop_sending)
        for number in range(CONTRIBUTORS)
    ]
    chaos = Chaos(seed, appliance, nodes, disk, stop_harming)
    for thread in (*senders, chaos):
        thread.start()
    chaos.join(duration_s)
    stop_harming.set()
    chaos.join()
    chaos.revive_nodes()
    stop_sending.set()
    for thread in senders:
        thread.join()
    if chaos.failure is not None:
        raise chaos.failure
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
