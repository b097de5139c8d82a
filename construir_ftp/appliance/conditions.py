"""What is not well with an appliance, for its operators: found out again and again, at little cost.

What is slow is looked at when it may have changed: a base image when its files have, a certificate every hour.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from construir_ftp import files
from construir_ftp.appliance import lives
from construir_ftp.config import Config
from construir_ftp.errors import CommandError, ConstruirError
from construir_ftp.ftp import certificate
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import inquiry, judging, pilots
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.spool import Spool
from construir_ftp.news.events import Condition
from construir_ftp.news.herald import Look
from construir_ftp.units import in_words

_TIME_TO_RENEW = timedelta(days=14)
_HOUR_S = 3600.0


class Conditions:
    """Of one appliance."""

    def __init__(self, spool: Spool, config: Config) -> None:
        self._spool, self._config = spool, config
        self._room = Room(spool, config.spool.min_free)
        self._proved: tuple[object, str] = (None, "")
        self._expiry: tuple[float, datetime | None] = (float("-inf"), None)

    def look(self) -> Look:
        """How it is now."""
        looks = (self._paused, self._judging, self._pilots, self._disk, self._base_image, self._certificate)
        found = tuple(condition for look in looks for condition in look())
        return Look(found, lives.crashes(self._spool.path))

    def _paused(self) -> Iterator[Condition]:
        report = inquiry.runner(self._spool)
        if report is not None and report.pause_detail:
            text = f"{report.pause_detail}. It is tried again by itself; uploads are still taken."
            yield Condition("paused", "no job is run", text)

    def _judging(self) -> Iterator[Condition]:
        if detail := judging.read(self._spool.path).detail:
            text = f"{detail}. It is tried again by itself; until then uploads are answered with 451. {judging.REMEDY}"
            yield Condition("judging", "no upload can be checked", text)

    def _pilots(self) -> Iterator[Condition]:
        kept = pilots.read(self._spool.path)
        if kept.trouble:
            text = f"{kept.detail}. It is tried again by itself; jobs run on the nodes that there are."
            yield Condition("pilots", "no node is started by Slurm", text)

    def _disk(self) -> Iterator[Condition]:
        if self._room.for_uploads() < 0:
            text = "Uploads are refused until there is more room on the disk of the spool. See: construir status"
            yield Condition("disk", "the disk is short of room", text)

    def _base_image(self) -> Iterator[Condition]:
        name = self._config.images.default
        try:
            base = baseimage.find(self._config.images_path(), name)
            problem = self._problem_of(base)
        except (ConstruirError, OSError) as error:
            problem = str(error)
        if problem:
            yield Condition("base-image", f"base image {name} can't be used", problem)
            return
        yield from self._age(base)

    def _problem_of(self, base: BaseImage) -> str:
        """What is wrong with the files of a base image, which are read once for each state that they are in."""
        marks = [(part, files.mark(base.path / part)) for part in baseimage.parts_in(base.path)]
        if self._proved[0] != marks:
            try:
                baseimage.prove(base)
                self._proved = (marks, "")
            except ConstruirError as error:
                self._proved = (marks, str(error))
        return self._proved[1]

    def _age(self, base: BaseImage) -> Iterator[Condition]:
        age_s = (datetime.now(UTC) - base.manifest.created).total_seconds()
        most_s = self._config.notify.image_age
        if most_s and age_s > most_s and not base.manifest.imported:
            text = f"It was built {in_words(age_s)} ago. Run: construir image build --refresh {base.name}"
            yield Condition("base-image-old", f"base image {base.name} is out of date", text)

    def _certificate(self) -> Iterator[Condition]:
        pair = self._config.tls.files()
        if pair is None:
            return
        ends = self._expires(pair[0])
        left = ends - datetime.now(UTC) if ends else _TIME_TO_RENEW
        if ends and left < _TIME_TO_RENEW:
            subject = "the certificate has ended" if left < timedelta(0) else "the certificate ends soon"
            text = f"{pair[0]} is good until {ends:%Y-%m-%d %H:%M} UTC. Renew it: the FTP server reads it by itself."
            yield Condition("certificate", subject, text)

    def _expires(self, path: Path) -> datetime | None:
        looked_at, ends = self._expiry
        if time.monotonic() - looked_at > _HOUR_S:
            try:
                ends = certificate.expires(path)
            except CommandError:  # that it can't be read is for the FTP server's log, and for construir check
                ends = None
            self._expiry = (time.monotonic(), ends)
        return ends
