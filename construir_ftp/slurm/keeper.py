"""The part "pilots": has Slurm start as many nodes as waiting jobs want, up to the bound, and ends idle ones.

What there is, Slurm and the ledger say together. A Slurm that does not answer changes nothing: none is started then,
and none forgotten. Only what waits in Slurm, or has said that it is idle, is ever ended, and has nothing to lose.
"""

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import nodes as jobs_nodes
from construir_ftp.jobs import places, service
from construir_ftp.jobs.nodes import Offered
from construir_ftp.jobs.pilots import Pilot
from construir_ftp.jobs.spool import Spool
from construir_ftp.slurm import cluster, need
from construir_ftp.slurm.cluster import Listed
from construir_ftp.slurm.ledger import Ledger, is_pilot
from construir_ftp.slurm.logs import Logs
from construir_ftp.slurm.need import Need, Node
from construir_ftp.slurm.order import Order, sbatch_args
from construir_ftp.slurm.trouble import Troubles
from construir_ftp.surroundings import SlurmSection

log = logging.getLogger("construir.pilots")

# What keeps pilots from being started, in words for anyone.
_SILENT, _REFUSED, _FAIL = "Slurm does not answer", "Slurm takes no pilot", "pilots end at their start"
# A pilot that so many answers in a row have not listed is not there. One is too few: what was asked for just before a
# crash may come a little later.
_FORGET_ANSWERS = 3
# After something was asked for, it is soon looked at.
_SOON_S = 5.0
# A pilot that runs for so long without a word is not counted on.
_BOOT_S = 300.0
# So long it is believed that pilots' base images are others than the front's, after the last one that had these.
_IMAGES_S = 600.0


class Keeper:
    """Of one spool. `command` starts a node, once its name follows."""

    def __init__(self, spool: Spool, section: SlurmSection, command: Sequence[str]) -> None:
        self._spool, self._section, self._command = spool, section, command
        self._ledger, self._logs = Ledger(spool.path), Logs(spool.path)
        self._troubles = Troubles()
        self._ask_at_s = 0.0
        self._is_answered = False
        # Of pilots by name: how many answers have not listed each, since when it runs without a word, or is idle.
        self._absent: dict[str, int] = {}
        self._silent: dict[str, float] = {}
        self._idle: dict[str, float] = {}
        # What the pilots that lived last have for jobs, and until when.
        self._offers: list[Offered] = []
        self._heard_s = 0.0
        # Those that were told to end.
        self._ended: set[str] = set()

    @property
    def prefix(self) -> str:
        """What the names begin with that Slurm has for pilots of this spool, and of no other."""
        return f"construir-{self._ledger.mark}-"

    def look(self, nodes: Mapping[str, Node] | None) -> None:
        """See what is wanted and what there is, and do what follows. `nodes` are those that live, by their names; None
        if nobody knows which do.
        """
        self._hear(nodes or {})
        if time.monotonic() >= self._ask_at_s:
            self._ask()
        if self._is_answered and nodes is not None:
            wanted = self._need(nodes)
            self._start(wanted)
            self._end(wanted, nodes)
            self._sweep(nodes)
        self._ledger.tell(*self._troubles.worst())
        self._ledger.save()

    # -- what there is -------------------------------------------------------------------------------------------

    def _hear(self, nodes: Mapping[str, Node]) -> None:
        offers = {name: jobs_nodes.offered(self._spool.path, name) for name in nodes if name in self._ledger}
        if heard := [offered for offered in offers.values() if offered is not None]:
            self._offers, self._heard_s = heard, time.monotonic()
        for pilot in self._ledger:
            if offers.get(pilot.name):
                self._silent.pop(pilot.name, None)
            if pilot.name in nodes and pilot.state != "running":
                log.info("pilot %s: is a node", pilot.name)
                self._ledger.note(msgspec.structs.replace(pilot, state="running", reason=""))
                self._troubles.end(_FAIL)

    def _ask(self) -> None:
        self._ask_at_s = time.monotonic() + self._section.every
        try:
            listed = cluster.listed(self.prefix)
        except ConstruirError as error:
            self._is_answered = False
            self._troubles.begin(_SILENT, str(error))
            return
        self._is_answered = True
        self._troubles.end(_SILENT)
        for pilot in self._ledger:
            self._reconcile(pilot, listed.get(pilot.name))
        for name, found in listed.items():
            if name not in self._ledger and found.state != "over":
                log.info("pilot %s: found in Slurm", name)
                self._note(Pilot(name=name), found)

    def _reconcile(self, pilot: Pilot, found: Listed | None) -> None:
        if found is None:
            self._absent[pilot.name] = self._absent.get(pilot.name, 0) + 1
            if self._absent[pilot.name] >= _FORGET_ANSWERS:
                self._note_loss(pilot)
                self._forget(pilot)
            return
        self._absent.pop(pilot.name, None)
        if found.state == "over":
            self._note_end(pilot, found)
            self._forget(pilot)
            return
        self._note(pilot, found)

    def _note(self, pilot: Pilot, found: Listed) -> None:
        """Have a pilot in the ledger as Slurm has it: one that runs, and was not heard of, starts."""
        state = "waiting" if found.state == "waiting" else "running" if pilot.state == "running" else "starting"
        if state != pilot.state:
            log.info("pilot %s: %s, as job %d", pilot.name, state, found.job)
            self._ended.discard(pilot.name)
        self._ledger.note(msgspec.structs.replace(pilot, job=found.job, state=state, reason=found.reason))

    def _note_end(self, pilot: Pilot, found: Listed) -> None:
        """One that never was a node, and that nobody has ended, could not start. Slurm may list what it has refused."""
        if pilot.state in ("asked", "running") or "CANCELLED" in found.words:
            log.info("pilot %s: ended: %s", pilot.name, found.words)
            self._logs.remove(pilot.name)
            return
        self._logs.prune({living.name for living in self._ledger})
        said = self._logs.last_words(pilot.name)
        self._troubles.begin(_FAIL, f"pilot {pilot.name} never was a node: {found.words}: {said}")

    def _note_loss(self, pilot: Pilot) -> None:
        """One that Slurm lists no more has ended long ago, or was lost, as by the crash of a slurmctld."""
        log.warning("pilot %s: Slurm does not have it", pilot.name)
        if pilot.state == "starting":
            said = self._logs.last_words(pilot.name)
            self._troubles.begin(_FAIL, f"pilot {pilot.name} never was a node, and Slurm has forgotten it: {said}")

    def _forget(self, pilot: Pilot) -> None:
        self._ledger.forget(pilot.name)
        self._ended.discard(pilot.name)
        self._absent.pop(pilot.name, None)
        for times in (self._silent, self._idle):
            times.pop(pilot.name, None)

    def _sweep(self, nodes: Mapping[str, Node]) -> None:
        """Remove what pilots have left that ended in good order: nobody has to remember them."""
        for name in jobs_nodes.names(self._spool.path):
            is_known = name in self._ledger or name in nodes
            if is_pilot(name) and not is_known and jobs_nodes.pulse(self._spool.path, name) is None:
                jobs_nodes.forget(self._spool.path, name)

    # -- what is wanted ------------------------------------------------------------------------------------------

    def _need(self, nodes: Mapping[str, Node]) -> Need:
        takes_jobs = service.read(self._spool.path).takes_jobs
        coming = sum(self._is_coming(pilot, nodes) for pilot in self._ledger)
        jobs = need.jobs(self._spool, self._offers, self._front()) if takes_jobs else Counter[need.Kind]()
        return Need(
            waiting=jobs.total(),
            free=need.free(self._spool, jobs, {name: nodes[name] for name in nodes if name not in self._ended}),
            coming=coming * self._section.jobs_per_pilot,
        )

    def _front(self) -> Offered | None:
        """What has the base images that jobs are run on; None where pilots may have these again by now."""
        is_recent = time.monotonic() - self._heard_s < _IMAGES_S
        return jobs_nodes.offered(self._spool.path, places.LOCAL) if is_recent else None

    def _is_coming(self, pilot: Pilot, nodes: Mapping[str, Node]) -> bool:
        """Whether a pilot is to take jobs soon."""
        if pilot.name in self._ended or pilot.state == "asked":
            return False
        if pilot.name in nodes and jobs_nodes.offered(self._spool.path, pilot.name):
            return False
        if pilot.state == "waiting":
            return True
        # It boots, or whoever judges nodes has just begun.
        since_s = self._silent.setdefault(pilot.name, time.monotonic())
        return time.monotonic() - since_s < _BOOT_S

    def _start(self, wanted: Need) -> None:
        count = wanted.more(self._section.jobs_per_pilot)
        if not count:
            self._troubles.end(_REFUSED)
        # Of one that may have come to nothing it has to be known first whether it has.
        while count and self._may_start() and self._submit():
            count -= 1

    def _may_start(self) -> bool:
        is_bounded = len(self._ledger) >= self._section.max_pilots
        return not (is_bounded or self._ledger.is_unsure() or self._troubles.have_to_wait())

    def _submit(self) -> bool:
        """Ask Slurm for one pilot more; whether it has taken it."""
        pilot = self._ledger.begin()
        self._ask_at_s = min(self._ask_at_s, time.monotonic() + _SOON_S)
        try:
            job = cluster.submit(sbatch_args(self._section, self._order(pilot.name)))
        except ConstruirError as error:
            self._troubles.begin(_REFUSED, str(error))
            return False
        log.info("pilot %s: asked of Slurm, as job %d", pilot.name, job)
        self._ledger.note(msgspec.structs.replace(pilot, job=job, state="waiting"))
        self._ledger.save()
        self._troubles.end(_REFUSED)
        return True

    def _order(self, name: str) -> Order:
        comment = f"node {name} of {self._spool.path} on {socket.gethostname()}"
        return Order(f"{self.prefix}{name}", comment, self._logs.place(name), [*self._command, name])

    # -- what is not wanted any more -----------------------------------------------------------------------------

    def _end(self, wanted: Need, nodes: Mapping[str, Node]) -> None:
        waiting = [pilot for pilot in self._ledger if pilot.state == "waiting" and pilot.job]
        excess = wanted.too_many(self._section.jobs_per_pilot)
        unwanted = {pilot.name for pilot in waiting[max(0, len(waiting) - excess) :]}
        for pilot in self._ledger:
            node = nodes.get(pilot.name)
            if pilot.name in unwanted:
                self._end_if_long(pilot, cluster.withdraw)
            elif pilot.state == "running" and node is not None and node.is_idle:
                self._end_if_long(pilot, cluster.drain)
            else:
                self._idle.pop(pilot.name, None)

    def _end_if_long(self, pilot: Pilot, how: Callable[[int], None]) -> None:
        """End a pilot that has had nothing to do for as long as is allowed."""
        now_s = time.monotonic()
        if now_s - self._idle.setdefault(pilot.name, now_s) < self._section.idle:
            return
        try:
            how(pilot.job)
        except ConstruirError as error:
            log.warning("pilot %s: can't be ended: %s", pilot.name, error)
        log.info("pilot %s: has nothing to do, and is ended", pilot.name)
        self._ended.add(pilot.name)
        # If that came to nothing, it is tried again after as long.
        self._idle[pilot.name] = now_s
        self._ask_at_s = min(self._ask_at_s, now_s + _SOON_S)
