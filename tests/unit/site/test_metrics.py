"""Promises of metrics: promtool has nothing to say against them, and rules and dashboard ask for what there is."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from construir_ftp.jobs import inquiry
from construir_ftp.jobs.reply import Reply
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import RunnerReport
from construir_ftp.jobs.tally import Tally
from construir_ftp.site.publisher import Told
from tests.support import sites
from tests.support.places import PROJECT
from tests.support.webservers import PROGRAMS

PROMTOOL = PROGRAMS / "usr/bin/promtool"
RULES, DASHBOARD = PROJECT / "etc/prometheus-rules.yml", PROJECT / "etc/grafana-dashboard.json"


@pytest.fixture
def text(spool: Spool, tmp_path: Path) -> str:
    """What is told of an appliance to which all has happened that can be told."""
    tally = Tally()
    tally.note_end(Reply(226, "Accepted"), 0.3, is_job=True)
    tally.note_end(Reply(550, "Refused"), 0.02, is_job=False)
    tally.note_refusal(Reply(452, "Refused"))
    tally.tell(spool.path)
    with sites.publishing(spool, tmp_path, Told(restarts=lambda: {"ftp": 1, "runner": 0})) as publisher:
        sites.put(spool, sites.result())
        sites.put(spool, sites.result("2026-failed", status="failed"))
        sites.put(spool, sites.result("2026-other", status="of-a-later-version"))
        sites.settle(publisher)
        return (spool.path / "site/metrics.prom").read_text()


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(text)
    return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


def test_promtool_is_content_with_them(text: str) -> None:
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_they_count_what_has_happened_since_the_part_began(text: str) -> None:
    told = samples(text)
    assert told["construir_jobs_ended_total", ("success",)] == 1
    assert told["construir_jobs_ended_total", ("failed",)] == 1
    assert told["construir_jobs_ended_total", ("other",)] == 1
    assert told["construir_jobs", ("done",)] == 3
    assert told["construir_job_wait_seconds_count", ()] == 3
    assert told["construir_job_wait_seconds_bucket", ("1.0",)] == 0
    assert told["construir_job_wait_seconds_bucket", ("5.0",)] == 3
    assert told["construir_boot_seconds_sum", ()] == 3
    assert told["construir_uploads_accepted_total", ()] == 1
    assert told["construir_uploads_refused_total", ("no-job",)] == 1
    assert told["construir_uploads_refused_total", ("no-room",)] == 1
    assert told["construir_upload_check_seconds_count", ()] == 2
    assert told["construir_upload_check_seconds_bucket", ("0.05",)] == 1
    assert told["construir_part_restarts_total", ("ftp",)] == 1
    assert told["construir_runner_up", ()] == 0


def test_results_that_were_there_before_are_no_jobs_that_ended(spool: Spool, tmp_path: Path) -> None:
    sites.put(spool, sites.result())
    with sites.publishing(spool, tmp_path):
        told = samples((spool.path / "site/metrics.prom").read_text())
    assert told["construir_jobs_ended_total", ("success",)] == 0
    assert told["construir_results", ("success",)] == 1


def test_a_pause_is_counted_when_it_begins(spool: Spool, tmp_path: Path) -> None:
    report = RunnerReport(slots=1, pause="no machine can be started")
    with spool.lock(), sites.publishing(spool, tmp_path) as publisher:
        for pause in ("", "no machine can be started", "no machine can be started", "", "the disk is nearly full"):
            inquiry.tell(spool, msgspec.structs.replace(report, pause=pause))
            sites.settle(publisher)
        told = samples((spool.path / "site/metrics.prom").read_text())
        assert "the disk is nearly full" in (spool.path / "site/index.html").read_text()
    assert (told["construir_pauses_total", ()], told["construir_paused", ()], told["construir_runner_up", ()]) == (
        2,
        1,
        1,
    )


def test_promtool_is_content_with_the_alerts() -> None:
    checked = subprocess.run([PROMTOOL, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "8 rules found" in checked.stdout


def expressions() -> Iterator[str]:
    yield from re.findall(r"expr: (.*)", RULES.read_text())
    for panel in msgspec.json.decode(DASHBOARD.read_bytes())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_alerts_and_dashboard_ask_for_nothing_that_is_not_there(text: str) -> None:
    there = {name for name, _ in samples(text)}
    asked = {name for expression in expressions() for name in re.findall(r"construir_\w+", expression)}
    assert len(asked) > 15
    assert asked <= there


def test_promtool_takes_every_question_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, expression in enumerate(expressions())
    ]
    (tmp_path / "rules.yml").write_bytes(msgspec.json.encode({"groups": [{"name": "dashboard", "rules": rules}]}))
    argv: list[str | Path] = [PROMTOOL, "check", "rules", tmp_path / "rules.yml"]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
