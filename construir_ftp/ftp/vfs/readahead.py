"""The listing of /done, read before anyone has asked for it, and kept however long nobody does.

A hundred thousand results take more than half a second to look at, one by one. So it is done when the server starts,
in the form in which most clients ask; afterwards only what has changed is looked at, see listing.
"""

import logging
from collections.abc import Iterable
from typing import Any

from construir_ftp.ftp.commands import listing
from construir_ftp.ftp.vfs.listing import ListingError, Listings, Reader
from construir_ftp.ftp.vfs.view import View

log = logging.getLogger("construir.ftp")

_PLACE = "/done"
# Whoever comes first after the start is greeted first; and what has just been changed is not kept.
_PAUSE_S = 1.0


class ReadAhead:
    """Reads what a session with that `view` would be sent; `facts` are those that MLSD tells unasked. To be closed."""

    def __init__(self, ioloop: Any, listings: Listings, view: View, facts: Iterable[str]) -> None:
        self._listings, self._view, self._facts = listings, view, facts
        self._reader: Reader | None = None
        self._soon = ioloop.call_later(_PAUSE_S, self._begin)

    def close(self) -> None:
        """Read no further, or do not begin to."""
        if not self._soon.cancelled:
            self._soon.cancel()
        if self._reader is not None:
            self._reader.close()

    def _begin(self) -> None:
        try:
            version, begin = listing.with_facts(self._view, _PLACE, self._facts)
            if version is not None:
                self._listings.keep(version)
            self._reader = self._listings.open(_PLACE, version, begin)
            self._go_on(self._reader)
        except OSError as error:
            log.warning("%s can't be listed: %s", _PLACE, error.strerror)

    def _go_on(self, reader: Reader) -> None:
        try:
            while reader.is_ready():
                if not reader.more():
                    reader.close()
                    return
        except ListingError:  # it has been logged
            reader.close()
        else:
            reader.wait(lambda: self._go_on(reader))
