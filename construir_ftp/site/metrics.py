"""What monitors read (Prometheus' text format): gauges of what is, counters and histograms of what this process saw.

    metrics.prom   in the site's directory: for node_exporter's textfile collector, and for /metrics of `serve web`

Counters begin at nothing when the part begins, as Prometheus expects; those of uploads are the FTP server's own.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from construir_ftp.jobs.result import Result
from construir_ftp.jobs.status import Summary
from construir_ftp.jobs.tally import CHECK_BUCKETS_S, Tally
from construir_ftp.site.view import STATUSES

_WAIT_BUCKETS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_BOOT_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_RUN_BUCKETS_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200)
STATES = ("waiting", "running", "done")


class _Given(Collector):
    """Counts that others keep: uploads, the FTP server's; restarts, those of the parts."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.restarts: Mapping[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        yield _labelled("construir_uploads_accepted", "Uploads that became jobs.", None, {"": self.tally.accepted})
        yield _labelled(
            "construir_uploads_refused", "Uploads that were refused, by reason.", "reason", self.tally.refused
        )
        yield _labelled(
            "construir_part_restarts", "Bad ends of a part, after which it was begun anew.", "part", self.restarts
        )
        checks = HistogramMetricFamily(
            "construir_upload_check_seconds", "From the last byte of an upload to its reply, as the judge took it."
        )
        checks.add_metric([], list(_cumulated(self.tally.checks)), self.tally.check_seconds)
        yield checks


def _labelled(name: str, help_text: str, label: str | None, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=[label] if label else None)
    for value, count in sorted(counts.items()):
        family.add_metric([value] if label else [], count)
    return family


def _cumulated(counts: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*map(str, CHECK_BUCKETS_S), "+Inf"), counts, strict=True):
        total += count
        yield bound, float(total)


class Metrics:
    """Of one appliance, as one process of its site sees it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._given = _Given()
        self._registry.register(self._given)
        self._jobs = self._gauge("construir_jobs", "Jobs by state.", "state")
        self._results = self._gauge("construir_results", "Results that are kept, by status.", "status")
        self._slots = self._gauge("construir_slots", "Machines that may run at the same time.")
        self._nodes = self._gauge("construir_nodes", "Nodes that live, the appliance's own among them.")
        self._free = self._gauge("construir_spool_free_bytes", "Room on the spool's file system.")
        self._kept = self._gauge("construir_spool_kept_free_bytes", "Room that is always kept: spool.min_free.")
        self._runner = self._gauge("construir_runner_up", "Whether a runner is there.")
        self._paused = self._gauge("construir_paused", "Whether no job is taken, since something of ours failed.")
        self._uploads = self._gauge("construir_accepts_uploads", "Whether uploads are accepted.")
        self._updated = self._gauge("construir_site_updated_seconds", "When all this was found out, since the Epoch.")
        self._ended = Counter(
            "construir_jobs_ended", "Jobs that ended, by status.", ["status"], registry=self._registry
        )
        self._pauses = Counter(
            "construir_pauses", "How often the runner began to take no job.", registry=self._registry
        )
        self._waits = self._histogram("construir_job_wait_seconds", "From the upload to a machine.", _WAIT_BUCKETS_S)
        self._boots = self._histogram(
            "construir_boot_seconds", "From a machine to the start of run.sh.", _BOOT_BUCKETS_S
        )
        self._starts = self._histogram(
            "construir_start_seconds", "From the upload to the start of run.sh.", _WAIT_BUCKETS_S
        )
        self._runs = self._histogram("construir_run_seconds", "From the start of run.sh to its end.", _RUN_BUCKETS_S)
        self._was_paused = False
        for status in STATUSES:
            self._ended.labels(status)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self._registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, help_text, buckets=buckets, registry=self._registry)

    def note_result(self, result: Result) -> None:
        """A job has just ended."""
        self._ended.labels(result.status if result.status in STATUSES else "other").inc()
        for histogram, begin, end in (
            (self._waits, result.received, result.booted),
            (self._boots, result.booted, result.started),
            (self._starts, result.received, result.started),
            (self._runs, result.started, result.ended),
        ):
            if begin is not None and end is not None:
                histogram.observe(max(0.0, (end - begin).total_seconds()))

    def note_pause(self, *, is_paused: bool) -> None:
        """Whether jobs are taken, as of now."""
        if is_paused and not self._was_paused:
            self._pauses.inc()
        self._was_paused = is_paused
        self._paused.set(is_paused)

    def text(
        self,
        summary: Summary,
        results: Mapping[str, int],
        tally: Tally,
        restarts: Mapping[str, int],
        *,
        is_runner_up: bool,
    ) -> bytes:
        """All of it."""
        self._given.tally, self._given.restarts = tally, restarts
        for state, jobs in zip(STATES, (summary.waiting, len(summary.running), sum(results.values())), strict=True):
            self._jobs.labels(state).set(jobs)
        for status in STATUSES:
            self._results.labels(status).set(results.get(status, 0))
        self._slots.set(summary.slots)
        self._nodes.set(len(summary.nodes) or int(is_runner_up))
        self._free.set(summary.free_bytes)
        self._kept.set(summary.kept_free_bytes)
        self._runner.set(is_runner_up)
        self._uploads.set(summary.accepts_uploads)
        if summary.time:
            self._updated.set(summary.time.timestamp())
        return bytes(generate_latest(self._registry))
