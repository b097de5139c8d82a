"""Log lines that anyone can cause as often as they like: a few are told at once, the others counted and told later.

What is counted is the kind of a line, and for each kind the addresses; neither is what a client has sent. All of it is
for the event loop's thread.
"""

import logging
import time
from collections import Counter
from typing import Any

log = logging.getLogger("construir.ftp")

INTERVAL_S = 60.0
# In each interval, of each kind: lines told at once for one address, lines told at once in all, addresses counted one
# by one, and addresses that the line at the end names.
_FEW_OF_ADDRESS = 5
_FEW = 20
_MOST_ADDRESSES = 100
_MOST_NAMED = 5
_OTHERS = "others"
# Paths of a session whose further fetches are not told.
_MOST_FOLLOWED = 1000


class _Kind:
    """What there was of one kind in the current interval."""

    def __init__(self) -> None:
        self.told = Counter[str]()
        self.untold = Counter[str]()
        self.level = logging.DEBUG

    def may_tell(self, network: str) -> bool:
        return self.told[network] < _FEW_OF_ADDRESS and self.told.total() < _FEW

    def count(self, network: str, level: int) -> None:
        is_known = network in self.untold or len(self.untold) < _MOST_ADDRESSES
        self.untold[network if is_known else _OTHERS] += 1
        self.level = max(self.level, level)

    def words(self) -> str:
        named = dict(self.untold.most_common(_MOST_NAMED))
        rest = self.untold.total() - sum(named.values())
        named |= {_OTHERS: named.get(_OTHERS, 0) + rest} if rest else {}
        return ", ".join(f"{count} from {network}" for network, count in named.items())


class QuietLog:
    """Of one server. Every `interval_s` what was counted is told, in one line a kind. To be closed."""

    def __init__(self, ioloop: Any) -> None:
        self.interval_s = INTERVAL_S
        self.timer: Any = None
        self._ioloop = ioloop
        self._kinds: dict[str, _Kind] = {}
        self._begun_s = time.monotonic()

    def tell(
        self, kind: str, network: str, text: str, *args: object, level: int = logging.INFO, exc_info: bool = False
    ) -> None:
        """Log `text` with `args`, or count it; `kind` is one of a few words of ours."""
        if not log.isEnabledFor(level):
            return
        if self.timer is None and time.monotonic() - self._begun_s >= self.interval_s:
            self._begin()
        known = self._kinds.setdefault(kind, _Kind())
        if known.may_tell(network):
            known.told[network] += 1
            log.log(level, text, *args, exc_info=exc_info)
            return
        known.count(network, level)
        if self.timer is None:
            left_s = self._begun_s + self.interval_s - time.monotonic()
            self.timer = self._ioloop.call_later(max(0, left_s), self._tell_counts)

    def close(self) -> None:
        """Tell what was counted."""
        if self.timer is not None and not self.timer.cancelled:
            self.timer.cancel()
        self._tell_counts()

    def _tell_counts(self) -> None:
        seconds = time.monotonic() - self._begun_s
        for name, kind in self._kinds.items():
            if kind.untold:
                log.log(kind.level, "%s: %d more in %.0f s: %s", name, kind.untold.total(), seconds, kind.words())
        self._begin()

    def _begin(self) -> None:
        self.timer, self._begun_s = None, time.monotonic()
        self._kinds.clear()


class Fetches:
    """What is told of the fetches of one session: each of a contributor's, a few of anyone's.

    What changes as it is read, in /running and /status.json, is fetched again and again by who follows a job: its first
    fetch is told.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._followed: set[str] = set()

    def note(self, path: str, size_bytes: int, *, is_complete: bool) -> None:
        """A file was fetched."""
        text, args = "fetched %a, %d bytes%s", (path, size_bytes, "" if is_complete else ", cut short")
        is_live = path.startswith("/running/") or path == "/status.json"
        if path in self._followed:
            log.debug(f"%s: {text}", self._session.who, *args)
        elif is_live or self._session.contributor is None:
            self._session.tell("fetched", text, *args)
        else:
            log.info(f"%s: {text}", self._session.who, *args)
        if is_live and len(self._followed) < _MOST_FOLLOWED:
            self._followed.add(path)


class SessionLog:
    """What a session says in the log: a part of ControlConnection."""

    server: Any
    network: str

    @property
    def who(self) -> str:
        """How the log calls this session."""
        raise NotImplementedError

    def tell(self, kind: str, text: str, *args: object, level: int = logging.INFO, exc_info: bool = False) -> None:
        """Log what anyone can cause as often as they like; see quiet_log."""
        quiet_log = self.server.quiet_log
        quiet_log.tell(kind, self.network, f"%s: {text}", self.who, *args, level=level, exc_info=exc_info)

    def log(self, msg: str, logfun: object = None) -> None:
        """Called with every reply, and more; %a, since names may hold anything."""
        log.debug("%s: %a", self.who, msg)

    logline = logerror = log

    def log_exception(self, instance: object) -> None:
        """Called in the handler of an exception that ends a connection."""
        text = "connection closed by an error of ours"
        self.tell(text, text, level=logging.ERROR, exc_info=True)

    def log_cmd(self, cmd: str, arg: str, respcode: int, respstr: str) -> None:
        """Called with every command; replies are logged anyway."""
