"""conditions: what operators are told is not well, found out of the real things."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from construir_ftp import files
from construir_ftp.appliance.conditions import Conditions
from construir_ftp.config import Config, ImagesSection, SpoolSection, TlsSection
from construir_ftp.image import baseimage
from construir_ftp.jobs import inquiry, judging, pilots
from construir_ftp.jobs.pilots import Pilots
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import RunnerReport
from construir_ftp.surroundings import NotifySection
from construir_ftp.units import Duration, Size
from tests.support.baseimages import publish
from tests.support.tlsclient import make_certificate

IMAGE = "bookworm-amd64"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of an appliance with a base image, where all is well."""
    publish(tmp_path / "images", IMAGE, {"file": "text"})
    return Config(spool=SpoolSection(min_free=Size(0)), images=ImagesSection(path=str(tmp_path / "images")))


def found(spool: Spool, config: Config) -> list[str]:
    return [condition.subject for condition in Conditions(spool, config).look().conditions]


def test_where_all_is_well_nothing_is_found(spool: Spool, config: Config) -> None:
    assert found(spool, config) == []


def test_a_pause_of_the_runner_is_found_and_a_wait_for_others_is_none(spool: Spool, config: Config) -> None:
    with spool.lock():
        inquiry.tell(spool, RunnerReport(slots=1, pause="there is not enough room beside what runs"))
        assert found(spool, config) == []
        inquiry.tell(spool, RunnerReport(slots=1, pause="no machine", pause_detail="no machine: /dev/kvm is gone"))
        (paused,) = Conditions(spool, config).look().conditions
    assert (paused.kind, paused.text.partition(".")[0]) == ("paused", "no machine: /dev/kvm is gone")


def test_a_slurm_that_starts_no_nodes_is_found(spool: Spool, config: Config) -> None:
    pilots.write(spool.path, Pilots(trouble="Slurm takes no pilot", detail="Slurm takes no pilot: Invalid account"))
    (refused,) = Conditions(spool, config).look().conditions
    assert (refused.kind, refused.text.partition(".")[0]) == ("pilots", "Slurm takes no pilot: Invalid account")


def test_uploads_that_cannot_be_checked_are_found_until_they_can(spool: Spool, config: Config) -> None:
    judging.tell(spool.path, "the jail can't be had: bwrap is missing")
    (unchecked,) = Conditions(spool, config).look().conditions
    assert (unchecked.kind, unchecked.subject) == ("judging", "no upload can be checked")
    assert unchecked.text.startswith("the jail can't be had: bwrap is missing. ")
    judging.tell(spool.path, "")
    assert found(spool, config) == []


def test_a_disk_without_room_is_found(spool: Spool, config: Config) -> None:
    short = msgspec.structs.replace(config, spool=SpoolSection(min_free=Size(files.free_bytes(spool.path) + 2**40)))
    assert found(spool, short) == ["the disk is short of room"]


def test_a_missing_and_a_damaged_base_image_are_found_and_a_mended_one_is_well_again(
    spool: Spool, config: Config
) -> None:
    looking, root = Conditions(spool, config), baseimage.find(config.images_path(), IMAGE).root
    assert looking.look().conditions == ()
    content = bytearray(root.read_bytes())
    content[5000] ^= 1
    root.chmod(0o644)
    root.write_bytes(content)
    (damaged,) = looking.look().conditions
    assert "root.img is not what was built" in damaged.text
    publish(config.images_path(), IMAGE, {"file": "other text"})
    assert looking.look().conditions == ()
    missing = msgspec.structs.replace(config, images=ImagesSection(path=str(spool.path), default="none"))
    (condition,) = Conditions(spool, missing).look().conditions
    assert (condition.kind, condition.subject) == ("base-image", "base image none can't be used")


def test_an_old_base_image_is_found_unless_none_ever_is(spool: Spool, config: Config) -> None:
    base = baseimage.find(config.images_path(), IMAGE)
    old = msgspec.structs.replace(base.manifest, created=datetime.now(UTC) - timedelta(days=31))
    (base.path / baseimage.MANIFEST).write_bytes(msgspec.json.encode(old))
    (condition,) = Conditions(spool, config).look().conditions
    assert (condition.kind, condition.text.partition(" Run")[0]) == ("base-image-old", "It was built 31 d ago.")
    never = msgspec.structs.replace(config, notify=NotifySection(image_age=Duration(0)))
    assert found(spool, never) == []


@pytest.mark.parametrize(("days", "subjects"), [(13, ["the certificate ends soon"]), (15, [])])
def test_a_certificate_that_ends_within_14_days_is_found(
    days: int, subjects: list[str], spool: Spool, config: Config, tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path, days=days)
    tls = msgspec.structs.replace(config, tls=TlsSection(certificate=str(certificate), key=str(key)))
    assert found(spool, tls) == subjects
    certificate.unlink()
    assert found(spool, tls) == []
