"""Promises of the part that writes the site: what is in the spool is on the pages, and nothing that is not for all."""

import os
import shutil
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from construir_ftp.image import baseimage
from construir_ftp.jobs import service
from construir_ftp.jobs.result import encode
from construir_ftp.jobs.service import Service
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.store import Store
from construir_ftp.site import changes
from construir_ftp.site.conditions import Finding
from construir_ftp.site.publisher import Told
from construir_ftp.trust import key_place, keys
from tests.support import baseimages, records, signed, sites
from tests.support.ftpclient import wait_until


def files(site: Path) -> set[str]:
    """All that is published, but for what is behind done/."""
    found = set()
    for directory, _, names in os.walk(site):
        found |= {str((Path(directory) / name).relative_to(site)) for name in names}
    return {name for name in found if not name.startswith((".", "static/"))}


def test_an_empty_spool_has_a_page_that_says_so(spool: Spool, tmp_path: Path) -> None:
    with sites.publishing(spool, tmp_path):
        site = spool.path / "site"
        assert files(site) == {
            "index.html", "contributors.html", "images.html", "feed.xml", "status.json", "metrics.prom", "robots.txt",
        } - {"contributors.html", "feed.xml"}  # fmt: skip
        assert "No job has ended yet" in (site / "index.html").read_text()
        assert msgspec.json.decode((site / "status.json").read_bytes())["accepts_uploads"] is True


def test_a_base_image_that_is_damaged_stops_nothing(spool: Spool, tmp_path: Path) -> None:
    for name, content in (("broken", b"{"), ("no name", b"{}")):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / baseimage.MANIFEST).write_bytes(content)
    with sites.publishing(spool, tmp_path):
        assert "There is none yet" in (spool.path / "site/images.html").read_text()


def test_layers_and_base_images_that_come_and_go_are_on_their_page_at_the_next_look(
    spool: Spool, tmp_path: Path
) -> None:
    page, images = spool.path / "site/images.html", tmp_path / "images"
    with sites.publishing(spool, tmp_path) as publisher:
        layer = records.put_layer(Store(spool.state("layers")), "make-1234", kind="packages")
        sites.settle(publisher)
        assert "make-1234" in page.read_text()
        baseimages.publish(images, "trixie-amd64", {})
        sites.settle(publisher)
        assert "trixie-amd64" in page.read_text()
        shutil.rmtree(layer.path)
        sites.settle(publisher)
        assert "make-1234" not in page.read_text()
        assert "trixie-amd64" in page.read_text()


def test_a_result_that_comes_is_on_all_pages_and_one_that_goes_on_none(spool: Spool, tmp_path: Path) -> None:
    site = spool.path / "site"
    with sites.publishing(spool, tmp_path) as publisher:
        job = sites.put(spool, sites.result(name="zlib"))
        sites.settle(publisher)
        for page in (
            "index.html",
            f"jobs/{job.id}.html",
            "contributors/alice.html",
            "contributors/alice.xml",
            "feed.xml",
        ):
            assert "zlib" in (site / page).read_text(), page
        assert (site / "done" / job.id / "output.log").read_bytes() == b"hello\n"
        spool.delete(job)
        sites.settle(publisher)
        assert not {name for name in files(site) if "alice" in name or job.id in name}
        assert "zlib" not in (site / "index.html").read_text() + (site / "feed.xml").read_text()


def test_what_is_there_already_is_read_when_the_part_begins_and_its_pages_are_left_alone(
    spool: Spool, tmp_path: Path
) -> None:
    for number in range(3):
        sites.put(spool, sites.result(f"2026-{number}"))
    site = spool.path / "site"
    with sites.publishing(spool, tmp_path):
        before = {path.name: path.stat().st_ino for path in (site / "jobs").iterdir()}
    gone, came = spool.jobs("done")[0], sites.result("2026-9")
    spool.delete(gone)
    sites.put(spool, came)
    with sites.publishing(spool, tmp_path):
        after = {path.name: path.stat().st_ino for path in (site / "jobs").iterdir()}
        assert sorted(after) == ["2026-1.html", "2026-2.html", "2026-9.html"]
        assert {name: before[name] for name in ("2026-1.html", "2026-2.html")}.items() <= after.items()
        assert "3 results" in (site / "contributors/alice.html").read_text()
    with sites.publishing(spool, tmp_path, title="Another name"):
        assert "Another name" in (site / "jobs/2026-1.html").read_text(), "pages of another version are written anew"


def test_of_a_job_that_runs_its_logs_are_published_and_nothing_else(spool: Spool, tmp_path: Path) -> None:
    job, site = sites.start(spool), spool.path / "site"
    (job.path / "output.log").write_bytes(b"one\n")
    job.disk.write_bytes(b"secret")
    with sites.publishing(spool, tmp_path) as publisher:
        copy, page = site / "running" / job.id / "output.log", site / "jobs" / f"{job.id}.html"
        assert [path.name for path in copy.parent.iterdir()] == ["output.log"]
        assert copy.stat().st_mode & 0o777 == 0o644
        with (job.path / "output.log").open("ab") as log:
            log.write(b"two\n")
        inode = copy.stat().st_ino
        sites.settle(publisher)
        assert copy.read_bytes() == b"one\ntwo\n"
        assert copy.stat().st_ino == inode, "it is appended to, for those who follow it"
        assert "Follow its log" in (site / "index.html").read_text()
        assert "one" in page.read_text()
        assert not any("secret" in path.read_text() for path in site.glob("**/*.html"))
        spool.requeue(job)
        sites.settle(publisher)
        assert not page.exists()
        assert not copy.parent.exists()


def test_the_log_of_a_job_that_is_begun_again_is_that_of_its_new_machine(spool: Spool, tmp_path: Path) -> None:
    job, site = sites.start(spool), spool.path / "site"
    log = job.path / "output.log"
    log.write_bytes(b"first try\n")
    with sites.publishing(spool, tmp_path) as publisher:
        log.unlink()
        (job.path / "other").touch()  # so that the new log is another file
        log.write_bytes(b"second try, which says more\n")
        sites.settle(publisher)
        assert (site / "running" / job.id / "output.log").read_bytes() == b"second try, which says more\n"


def test_the_page_of_a_job_that_ran_becomes_that_of_its_result_also_if_nobody_wrote_it_meanwhile(
    spool: Spool, tmp_path: Path
) -> None:
    job, site = sites.start(spool), spool.path / "site"
    (job.path / "output.log").write_bytes(b"one\n")
    with sites.publishing(spool, tmp_path):
        assert "Runs" in (site / "jobs" / f"{job.id}.html").read_text()
    spool.finish(job, encode(sites.result(job.id, artifacts=(), image=None)))
    with sites.publishing(spool, tmp_path):
        page = (site / "jobs" / f"{job.id}.html").read_text()
        assert "Success" in page
        assert list((site / "running").iterdir()) == []


def test_of_waiting_jobs_no_more_is_told_than_anonymous_ftp_tells(spool: Spool, tmp_path: Path) -> None:
    running = sites.start(spool, "private-name", "bob")
    waiting = spool.requeue(running)
    with sites.publishing(spool, tmp_path):
        text = "".join(path.read_text() for path in (spool.path / "site").glob("*.*"))
        assert waiting.id in text
        assert "bob" not in text
        assert not (spool.path / "site/jobs" / f"{waiting.id}.html").exists()


def test_a_name_that_no_page_can_have_gets_none_and_stops_nothing(spool: Spool, tmp_path: Path) -> None:
    sites.put(spool, sites.result("2026-a", contributor="../../evil"))
    sites.put(spool, sites.result("2026-b", contributor="<b>"))
    (spool.state("done") / "2026-damaged").mkdir()
    sites.put(spool, sites.result("2026-c"))
    with sites.publishing(spool, tmp_path):
        assert sorted(path.name for path in (spool.path / "site/contributors").iterdir()) == ["alice.html", "alice.xml"]
        assert "&lt;b&gt;" in (spool.path / "site/index.html").read_text()
        assert not list(tmp_path.rglob("evil*"))


def test_an_odd_result_keeps_no_other_from_its_page_and_is_told_of_once(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = sites.put(spool, sites.result("2026-core"))
    Path(os.fsdecode(os.fsencode(job.path / "core") + b"\xff")).write_bytes(b"")
    for number, time in enumerate(("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")):
        sites.put(spool, sites.result(f"2026-then-{number}", published=datetime.fromisoformat(time)))
    for name in ("2026-" + "l" * 236, "2026-" + "l" * 250):
        sites.put(spool, sites.result(name))
    sites.put(spool, sites.result("2026-c")).path.rename(os.fsdecode(bytes(spool.state("done")) + b"/2026-d\xff"))
    sites.put(spool, sites.result("2026-c"))
    site = spool.path / "site"
    with sites.publishing(spool, tmp_path) as publisher:
        assert "core%FF" in (site / "jobs/2026-core.html").read_text()
        publisher.compare()
        sites.settle(publisher)
        shutil.rmtree(spool.state("done") / ("2026-" + "l" * 250))
        sites.settle(publisher)
        there = {
            "2026-core.html",
            "2026-then-0.html",
            "2026-then-1.html",
            "2026-c.html",
            os.fsdecode(b"2026-d\xff.html"),
        }
        assert {path.name for path in (site / "jobs").iterdir()} == there
        assert "2026-d%FF" in (site / "index.html").read_text()
        assert "2026-then-0" in (site / "feed.xml").read_text()
    assert [record.getMessage()[-27:] for record in caplog.records] == ["no page: its id is too long"] * 2


def test_health_is_told_as_check_has_it_and_an_appliance_out_of_service_says_so(spool: Spool, tmp_path: Path) -> None:
    told = Told(lambda: [Finding("warning", "Certificate", "3 days left")], lambda: {"ftp": 2})
    service.decide(spool.path, Service(takes_uploads=False, takes_jobs=False, why="the disk is being replaced"))
    with sites.publishing(spool, tmp_path, told):
        page = (spool.path / "site/index.html").read_text()
        assert "3 days left" in page
        assert "No runner is there to run jobs" in page
        assert "the disk is being replaced" in page
        assert 'construir_part_restarts_total{part="ftp"} 2.0' in (spool.path / "site/metrics.prom").read_text()


def test_what_could_not_be_written_is_told_in_a_line_and_written_later(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site, told, stop = spool.path / "site", *socket.socketpair()
    with told, stop, sites.publishing(spool, tmp_path) as publisher:
        (site / "jobs").rename(site / "moved")
        job = sites.put(spool, sites.result())
        stop.send(b"!")
        publisher.run(told, lambda: None)
        (record,) = caplog.records
        assert record.getMessage().startswith(f"the site can't be written: {site}/jobs/")
        assert record.getMessage().endswith(": No such file or directory")
        (site / "moved").rename(site / "jobs")
        publisher.run(told, lambda: None)
        assert [path.name for path in (site / "jobs").iterdir()] == [f"{job.id}.html"]


def test_without_inotify_a_directory_that_has_changed_is_looked_at(spool: Spool) -> None:
    directory = spool.state("done")
    with closing(changes.Polled(directory)) as polled:
        wait_until(lambda: polled.read() == set(), "nothing changes")
        (directory / "came").mkdir()
        assert polled.read() is None


def test_the_kernel_tells_which_results_came_and_went(spool: Spool) -> None:
    directory = spool.state("done")
    with closing(changes.Changes(directory)) as told:
        assert told.read() == set()
        job = sites.put(spool, sites.result())
        (directory / "b").mkdir()
        assert told.read() == {job.id, "b"}
        spool.delete(job)
        assert told.read() == {job.id}


def test_a_job_is_expected_to_take_as_long_as_the_last_one_of_its_name(spool: Spool, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    began, ended = now - timedelta(hours=2), now - timedelta(hours=1)
    sites.put(spool, sites.result(name="hello", started=began, ended=ended, published=ended))
    sites.start(spool, "hello")
    with sites.publishing(spool, tmp_path):
        assert "of usually 1 h." in (spool.path / "site/index.html").read_text()


def test_the_public_keys_are_on_the_site_and_an_old_one_stays_when_there_is_a_new_one(
    spool: Spool, tmp_path: Path
) -> None:
    site, place = spool.path / "site", key_place.directory(spool.path)
    with sites.publishing(spool, tmp_path) as publisher:
        assert not {"construir.pub", "allowed_signers"} & files(site), "there is no key yet"
        seals = [signed.seal(spool.path)]
        sites.put(spool, sites.result())
        sites.settle(publisher)
        assert (site / "construir.pub").read_bytes() == (place / "construir.pub").read_bytes()
        for half in (seals[0].key.path, place / "construir.pub"):
            half.unlink()
        seals.append(signed.seal(spool.path))
        sites.put(spool, sites.result("20261122T104103Z-7f3a-hello"))
        sites.settle(publisher)
        old, new = (seal.key.public for seal in seals)
        assert (site / "construir.pub").read_text().startswith(new.line())
        assert keys.read((site / "allowed_signers").read_text(), "it") == [new, old]
        index = (site / "index.html").read_text()
        assert f'Results are signed with the key <span class="sum">{new.fingerprint}</span>' in index
        assert 'href="construir.pub"' in index
        assert 'href="allowed_signers"' in index
        assert "all 2 keys so far" in index
