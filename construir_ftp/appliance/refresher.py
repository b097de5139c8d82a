"""Base images are built anew when they are older than images.refresh says, by the command anyone would type.

    .refreshed-NAME    beside the images: its time is when NAME was last begun, so that a restart begins nothing anew,
                       and several appliances that share the images don't do it all at once

A build takes minutes, and nobody waits for it: `look` starts one at most, or sees what has become of it.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from construir_ftp import process
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage

log = logging.getLogger(__name__)

# What could not be built, perhaps because the archive was out of reach, is tried again sooner than it is due.
_RETRY_S = 86400.0
# For a build that is to end; what it has begun is a draft.
_CLOSE_S = 5.0


class Refresher:
    """Of the base images in a directory, each due after `every_s` seconds, never if that is 0. To be closed.

    `command` is what the name of an image is put behind.
    """

    def __init__(self, images: Path, every_s: float, command: Sequence[str | Path]) -> None:
        self._images, self._every_s, self._command = images, every_s, command
        self._child: subprocess.Popen[bytes] | None = None
        self._name = ""

    def look(self) -> None:
        """Begin what is due, one image at a time; note what has ended."""
        if self._child is not None:
            self._see_to(self._child)
        elif self._every_s and (due := self._due()):
            self._begin(due[0])

    def close(self) -> None:
        """End a build that is under way; it leaves the image as it was."""
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(_CLOSE_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _due(self) -> list[str]:
        horizon_s = time.time() - self._every_s
        built = [base for base in baseimage.every(self._images) if not base.manifest.imported]
        ages = sorted((self._begun_s(base), base.name) for base in built)
        return [name for begun_s, name in ages if begun_s < horizon_s]

    def _begun_s(self, base: BaseImage) -> float:
        try:
            return max(base.manifest.created.timestamp(), self._stamp(base.name).stat().st_mtime)
        except FileNotFoundError:
            return base.manifest.created.timestamp()

    def _begin(self, name: str) -> None:
        self._stamp(name).touch()
        log.info("base image '%s': building a new version", name)
        # It says what it does, and why it failed, where we do. setpriv(1): it ends with us, however that is.
        argv = ["setpriv", "--pdeathsig", "TERM", *self._command, name]
        self._name, self._child = (
            name,
            process.spawn(argv, env=dict(os.environ), stdout=sys.stdout.fileno(), stderr=sys.stderr.fileno()),
        )

    def _see_to(self, child: "subprocess.Popen[bytes]") -> None:
        status = child.poll()
        if status is None:
            return
        self._child = None
        if status:
            again_s = min(self._every_s, _RETRY_S)
            due_s = time.time() - self._every_s + again_s
            os.utime(self._stamp(self._name), (due_s, due_s))
            log.error(
                "base image '%s': no new version (exit status %d), it stays as it is; the next try is in %g hours",
                self._name,
                status,
                round(again_s / 3600, 1),
            )

    def _stamp(self, name: str) -> Path:
        return self._images / f".refreshed-{name}"
