"""The part that writes the site: what has changed in the spool is looked for each second, and only that is written.

Of results the kernel tells which came or went; all of done/ is read once, when the part begins, the newest first. A
look that fails is logged; the next one compares everything with what is there.
"""

import logging
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from construir_ftp import errors, files, schema
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError, one_line
from construir_ftp.jobs import inquiry, judging, places, service, tally
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.result import Result
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.jobs.status import RunnerReport, RunningJob, Summary
from construir_ftp.site import changes, conditions, pages, plots, shelf, signers, view
from construir_ftp.site.conditions import Finding
from construir_ftp.site.live import Logs
from construir_ftp.site.metrics import Metrics
from construir_ftp.site.pages import Overview, Pages, Running
from construir_ftp.site.plots import Sample
from construir_ftp.site.shelf import Fact, Shelf
from construir_ftp.site.stock import Stock
from construir_ftp.site.tree import INDEX, Tree

log = logging.getLogger(__name__)

_LOOK_S = 1.0
# Looks that results cause are no closer than this, however many jobs end.
_APART_S = 0.2
# How old the index may be while jobs wait or run, and while none does; and what changes seldom.
_FRESH_S, _IDLE_FRESH_S, _SELDOM_S = 10.0, 15.0, 600.0
# What has failed, such as for want of room, is tried again after this.
_AFTER_FAILURE_S = 10.0
# So much of a look is for results that were there before.
_BACKLOG_S = 0.25
_ROOM_FILE, _ROOM_S = ".room.json", 3600.0
_WEEK_S, _DAY_S = 7 * 86400, 86400
# A name has 255 bytes (limits.h), of which that of a page's draft needs 15.
_LONGEST_ID_BYTES = 240


class Told(NamedTuple):
    """What others know: how the appliance is, as `check` sees it, and how often each part came to a bad end."""

    health: Callable[[], list[Finding]] = list
    restarts: Callable[[], Mapping[str, int]] = dict


class Publisher:
    """Of one appliance. To be closed."""

    def __init__(self, spool: Spool, config: Config, told: Told = Told()) -> None:  # noqa: B008 - it never changes
        self._spool, self._config, self._told = spool, config, told
        self._tree = Tree(config.site_path())
        self._pages = Pages(config.site.title, pages.address(config), pages.ftp_server(config))
        self._shelf, self._metrics = Shelf(), Metrics()
        self._tree.prepare(spool.state("done"))
        self._logs = Logs(spool, self._tree.path / "running")
        self._changes = changes.watch(spool.state("done"))
        self._version = self._pages.version()
        self._written: set[str] = set()
        self._backlog: list[str] = []
        self._running: list[str] = []
        # The results that have no page, each of which was told of in the log.
        self._pageless: set[str] = set()
        # Whether a look has failed, so that anything may have been missed.
        self._is_behind = False
        self._dirty: set[str] = set()
        self._seen: object = None
        self._index_at_s = self._seldom_at_s = float("-inf")
        self._health: list[Finding] = []
        self._room = self._read_room()
        self.compare(is_first=True)

    def close(self) -> None:
        """Hear of no more changes."""
        self._changes.close()

    def run(self, stop: socket.socket, alive: Callable[[], object]) -> None:
        """Look, and look again, until `stop` is readable; `alive` is called after each."""
        while True:
            is_well = self._look_or_log()
            alive()
            if select.select([stop], [], [], _APART_S if is_well else _AFTER_FAILURE_S)[0]:
                return
            patience_s = 0.0 if self._backlog else _LOOK_S - _APART_S
            select.select([stop.fileno(), self._changes.fileno()], [], [], patience_s)

    def _look_or_log(self) -> bool:
        try:
            if self._is_behind:
                self.compare()
            self.look()
        except OSError as error:
            log.error("the site can't be written: %s: %s", error.filename or self._tree.path, error.strerror)  # noqa: TRY400 - no bug of ours
        except Exception:
            log.exception("the site could not be written")
        else:
            return True
        self._is_behind = True
        return False

    def look(self) -> bool:
        """Write what has changed; whether all results are known by now."""
        came = self._changes.read()
        if came is None:
            self.compare()
        for job_id in came or ():
            self._follow(job_id)
        self._work_off(time.monotonic() + _BACKLOG_S)
        self._follow_running()
        # What was there before is on the index once all of it is known, or as the index gets old.
        has_changed = bool(came) or bool(self._dirty and not self._backlog)
        self._write_contributors()
        self._write_images()
        self._write_overview(has_changed=has_changed)
        return not self._backlog

    # -- results -------------------------------------------------------------------------------------------------

    def compare(self, *, is_first: bool = False) -> None:
        """Find out anew which results there are, and which have their page."""
        there, running = set(self._spool.names("done")), set(self._spool.names("running"))
        self._written = self._tree.names("jobs", ".html") if self._tree.is_of(self._version) else set()
        # Of a job that ran when its page was written, that is no page of a result.
        self._written -= self._tree.names("running", "") if is_first else set(self._running)
        for gone in (self._shelf.ids() | self._tree.names("jobs", ".html")) - there - running:
            self._drop(gone)
        self._backlog = sorted(there - self._shelf.ids())
        self._stock = Stock(self._config.images_path(), self._spool.state("layers"))
        # Somebody may have no result any more.
        self._dirty |= self._tree.names("contributors", ".html")
        self._is_behind = False

    def _work_off(self, deadline_s: float) -> None:
        while self._backlog and time.monotonic() < deadline_s:
            self._take(self._backlog[-1])
            self._backlog.pop()
        if not self._backlog and not self._tree.is_of(self._version):
            self._tree.note_version(self._version)
            self._written = set()

    def _follow(self, job_id: str) -> None:
        """A result has come, or gone."""
        if (self._spool.state("done") / job_id).is_dir():
            self._take(job_id, is_new=True)
        else:
            self._drop(job_id)

    def _take(self, job_id: str, *, is_new: bool = False) -> None:
        if job_id in self._shelf:
            return
        try:
            result, known, page = self._read(Job(self._spool.state("done") / job_id))
        except Exception as error:
            # One odd result must not keep the others from their pages.
            if errors.is_of_the_computer(error):  # no fault of the result
                raise
            self._go_without(job_id, error)
            return
        if page is not None:
            self._tree.put_once(f"jobs/{job_id}.html", page)
        self._shelf.add(known)
        self._dirty.add(result.contributor)
        if is_new:
            self._metrics.note_result(result)

    def _read(self, job: Job) -> tuple[Result, Fact, bytes | None]:
        """A result, what is remembered of it, and its page unless that is there."""
        if len(os.fsencode(job.id)) > _LONGEST_ID_BYTES:
            raise ConstruirError("its id is too long")
        result = read_result(job)
        page = None if job.id in self._written else self._pages.result(result, job.path)
        return result, shelf.fact(job.id, result), page

    def _go_without(self, job_id: str, error: Exception) -> None:
        if job_id not in self._pageless:
            log.warning("job %s has no page: %s", one_line(job_id), one_line(error))
        self._pageless.add(job_id)

    def _drop(self, job_id: str) -> None:
        self._pageless.discard(job_id)
        if (known := self._shelf.remove(job_id)) is not None:
            self._dirty.add(known.contributor)
        self._tree.remove(f"jobs/{job_id}.html")

    # -- contributors --------------------------------------------------------------------------------------------

    def _write_contributors(self) -> None:
        if not self._dirty:
            return
        for name in {view.page_of(contributor) for contributor in self._dirty} - {""}:
            self._write_contributor(name)
        names = [name for name in self._shelf.contributors() if view.page_of(name)]
        counts = [(name, self._shelf.count_of(name)) for name in names]
        self._tree.put("contributors.html", self._pages.contributors(counts))
        self._tree.put("feed.xml", self._pages.feed(self._shelf.newest(pages.IN_FEED)))
        self._dirty = set()

    def _write_contributor(self, name: str) -> None:
        page, feed = f"contributors/{name}.html", f"contributors/{name}.xml"
        newest = self._shelf.newest_of(name, pages.LISTED_OF_ONE)
        if newest:
            self._tree.put_once(page, self._pages.contributor(name, self._shelf.count_of(name), newest))
            self._tree.put_once(feed, self._pages.feed(newest[: pages.IN_FEED], name))
        elif not self._backlog:
            self._tree.remove(page, feed)

    # -- what runs -----------------------------------------------------------------------------------------------

    def _follow_running(self) -> None:
        now = self._spool.names("running")
        for gone in set(self._running) - set(now):
            if not (self._spool.state("done") / gone).is_dir():  # it is back in the queue
                self._tree.remove(f"jobs/{gone}.html")
        self._running = now
        self._logs.follow(now)

    def _view(self, job: RunningJob, now: datetime) -> Running:
        record = self._spool.records("running").get(job.job)
        name, contributor = (record.name, record.contributor) if record else (job.job, "")
        elapsed_s = (now - job.since).total_seconds() if job.since else 0.0
        usual_s = self._shelf.usual_s(contributor, name)
        part = min(elapsed_s / usual_s, 0.99) if usual_s else None
        return Running(job.job, name, job.since, job.words(), elapsed_s, usual_s, part)

    def _write_running(self, running: list[Running]) -> None:
        for job in running:
            copies = self._tree.path / "running" / job.id
            if job.id in self._running and not (self._spool.state("done") / job.id).is_dir():
                self._tree.put_once(f"jobs/{job.id}.html", self._pages.running(job, copies))

    # -- all of it -----------------------------------------------------------------------------------------------

    def _write_overview(self, *, has_changed: bool) -> None:
        now_s = time.monotonic()
        files_told = [
            self._spool.path / name for name in ("queue", "nodes/local/runner.json", service.FILE, judging.FILE)
        ]
        seen = [files.mark(path) for path in (*files_told, *places.directories(self._spool.path, "running"))]
        fresh_s = _FRESH_S if self._running else _IDLE_FRESH_S
        if not has_changed and seen == self._seen and now_s - self._index_at_s < fresh_s:
            return
        if now_s - self._seldom_at_s > _SELDOM_S:
            self._write_seldom()
            self._seldom_at_s = now_s
        self._write_index(inquiry.summary(self._spool, self._config.spool.min_free))
        self._seen, self._index_at_s = seen, now_s

    def _write_seldom(self) -> None:
        self._put_static()
        self._health = self._told.health()

    def _write_images(self) -> None:
        if self._stock.has_changed():
            bases, layers = self._stock.base_images(), self._stock.layers()
            self._tree.put("images.html", self._pages.images(bases, layers, self._config.images.default))

    def _write_index(self, summary: Summary) -> None:
        now = summary.time or datetime.now(UTC)
        report = inquiry.runner(self._spool)
        running = [self._view(job, now) for job in summary.running]
        self._write_running(running)
        overview = Overview(
            summary=summary,
            running=running,
            newest=self._shelf.newest(pages.LISTED),
            results=len(self._shelf),
            day=self._shelf.count_since(now.timestamp() - _DAY_S),
            week=plots.week(self._shelf, self._note_room(now.timestamp(), summary.free_bytes), now.timestamp()),
            health=[*conditions.look(self._spool.path, summary, report), *self._health],
            keys=signers.put(self._tree, self._spool.path),
        )
        self._tree.put(INDEX, self._pages.index(overview))
        self._tree.put("status.json", pages.as_json(summary))
        self._write_metrics(summary, report)

    def _write_metrics(self, summary: Summary, report: RunnerReport | None) -> None:
        self._metrics.note_pause(is_paused=bool(report and report.pause))
        counted, restarts = tally.read(self._spool.path), self._told.restarts()
        text = self._metrics.text(summary, self._shelf.statuses, counted, restarts, is_runner_up=report is not None)
        self._tree.put("metrics.prom", text)

    # -- room ----------------------------------------------------------------------------------------------------

    def _read_room(self) -> list[Sample]:
        with suppress(OSError, msgspec.MsgspecError):
            return schema.from_json((self._tree.path / _ROOM_FILE).read_bytes(), list[Sample])
        return []

    def _note_room(self, now_s: float, free_bytes: int) -> list[Sample]:
        """How much room there was in the last week, and is now; an hour apart."""
        if not self._room or now_s - self._room[-1].time_s >= _ROOM_S:
            self._room = [sample for sample in self._room if now_s - _WEEK_S < sample.time_s <= now_s]
            self._room.append(Sample(now_s, free_bytes))
            files.replace(self._tree.path / _ROOM_FILE, msgspec.json.encode(self._room))
        return [*self._room, Sample(now_s, free_bytes)]

    def _put_static(self) -> None:
        for file in pages.STATIC.iterdir():
            place = "" if file.name == "robots.txt" else "static/"
            self._tree.put(place + file.name, file.read_bytes())
