"""How long a password has to wait until it is looked at, after others were wrong.

Three things are counted. Each has a pause of its own, which begins with `wrong_password_pause` and doubles with every
wrong password:

    an address (see limits.network)      up to `max_wrong_password_pause`
    a name, whoever tries it from where  up to a quarter of `login_timeout`: it delays, and shuts nobody out
    a pair of the two that is known      up to the same, and then the other two don't count

A pair becomes known when that name logs in well from that address, and stays it for a day. So whatever strangers
try, on alice's name or at an address they share with her, she can log in where she did before; and from anywhere else
after a few seconds. A login that succeeds also forgets what was counted against its name, but not against its address:
else an account of one's own would pay for guessing at others'. Half of a count is forgotten in ten minutes without a
pause or a wrong password.

Time is an argument: seconds of a clock that never steps back.
"""

import math
from collections import OrderedDict

from construir_ftp.config import FtpSection

_HALF_LIFE_S = 600.0
_KNOWN_S = 86400.0
_MOST_ENTRIES = 10_000
# The longest name a contributor can have, and one more: longer ones are all the same nobody.
_NAME_CHARACTERS = 33


class _Tally:
    """Wrong passwords by some key: how many lately, and until when the next has to wait. Who was first goes first."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = min(first_s, most_s), most_s
        self._most_counted = 2 + math.log2(self._most_s / self._first_s)
        self._counts: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def add(self, key: object, now: float) -> None:
        count, until = self._counts.pop(key, (0.0, now))
        count *= 0.5 ** (max(0.0, now - until) / _HALF_LIFE_S)
        count = min(count + 1, self._most_counted)
        self._counts[key] = count, now + min(self._most_s, self._first_s * 2 ** (count - 1))
        if len(self._counts) > _MOST_ENTRIES:
            self._counts.popitem(last=False)

    def forget(self, key: object) -> None:
        self._counts.pop(key, None)

    def wait_s(self, key: object, now: float) -> float:
        return max(0.0, self._counts[key][1] - now) if key in self._counts else 0.0


class Backoff:
    """What was counted, and what follows from it. Bounded: the oldest of 10,000 entries is forgotten for a new one."""

    def __init__(self, ftp: FtpSection) -> None:
        first_s, short_s = ftp.wrong_password_pause, ftp.login_timeout / 4
        self._addresses = _Tally(first_s, ftp.max_wrong_password_pause)
        self._names = _Tally(first_s, short_s)
        self._pairs = _Tally(first_s, short_s)
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_known(self, network: str, name: str, now: float) -> bool:
        """Whether `name` has logged in from there within a day."""
        return now - self._known.get((network, name), -math.inf) < _KNOWN_S

    def wait_s(self, network: str, name: str, now: float) -> float:
        """How long from now the next password for `name` from there has to wait."""
        if self.is_known(network, name, now):
            return self._pairs.wait_s((network, name), now)
        return max(self.address_wait_s(network, now), self._names.wait_s(name[:_NAME_CHARACTERS], now))

    def address_wait_s(self, network: str, now: float) -> float:
        """The part of it that is due to the address, as long as the pair is not known."""
        return self._addresses.wait_s(network, now)

    def note_wrong(self, network: str, name: str, now: float) -> None:
        """The password was wrong."""
        self._names.add(name[:_NAME_CHARACTERS], now)
        if self.is_known(network, name, now):
            self._pairs.add((network, name), now)
        else:
            self._addresses.add(network, now)

    def note_right(self, network: str, name: str, now: float) -> None:
        """The password was right."""
        self._names.forget(name)
        self._pairs.forget((network, name))
        self._known.pop((network, name), None)
        self._known[network, name] = now
        if len(self._known) > _MOST_ENTRIES:
            self._known.popitem(last=False)
