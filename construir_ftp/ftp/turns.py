"""Whose command is next. Addresses take turns, and so do the sessions of one address, with one command each.

So what a session sends without end delays its own address, and others by no more than a command. An address also has a
rate: what it sends beyond that waits unread, and is obeyed later. For the event loop's thread.
"""

import time
from collections import OrderedDict
from typing import Any, Protocol

# After so much work connections are read from, written to and accepted, and then the next turn comes.
_WORK_S = 0.01
# So many seconds' worth of commands may come at once: who mirrors some thousand files is not slowed.
BURST_S = 20.0
# An address that has used up its rate rests so long at least: the loop has other things to do than to count.
_REST_S = 0.01
# Of so many addresses it is known what they have used. The one that was seen first is forgotten for a new one.
_MOST_ADDRESSES = 10_000


class Member(Protocol):
    """What takes turns: a session."""

    network: str

    def take_turn(self) -> bool:
        """Obey one command; whether there is another to be obeyed next. Raises nothing."""


class Allowance:
    """How many commands each address may have obeyed: `rate` a second, and BURST_S of them at once.

    Time is an argument: seconds of a clock that never steps back.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        # When each address will have its whole burst again.
        self._whole_s: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, network: str, now: float) -> float:
        """How long from now the next command of the address has to wait."""
        return max(0.0, self._whole_s.get(network, now) + 1 / self._rate - BURST_S - now)

    def use(self, network: str, now: float) -> None:
        """A command of the address is obeyed."""
        self._whole_s[network] = max(now, self._whole_s.get(network, now)) + 1 / self._rate
        if len(self._whole_s) > _MOST_ADDRESSES:
            self._whole_s.popitem(last=False)


Lane = OrderedDict[Member, None]


class Turns:
    """All members that have something to be obeyed: a lane for each address, in the order of their turns.

    A lane rests while its address has used up its `rate`, in commands a second.
    """

    def __init__(self, ioloop: Any, rate: float) -> None:
        self._ioloop, self._allowance = ioloop, Allowance(rate)
        self._ready: OrderedDict[str, Lane] = OrderedDict()
        self._resting: dict[str, Lane] = {}
        self._timer: Any = None

    def line_up(self, member: Member) -> None:
        """Have `member.take_turn` called in its turn; once, however often it lines up."""
        lane = self._resting.get(member.network)
        if lane is None:
            lane = self._ready.setdefault(member.network, OrderedDict())
        lane[member] = None
        if self._ready:
            self._call_in(0)

    def leave(self, member: Member) -> None:
        """The member wants no turn any longer."""
        for lanes in (self._ready, self._resting):
            lanes.get(member.network, OrderedDict()).pop(member, None)
            self._drop_if_empty(lanes, member.network)
        if not self._ready and not self._resting:
            self._stop_timer()

    def has(self, member: Member) -> bool:
        """Whether its turn is to come."""
        return any(member in lanes.get(member.network, ()) for lanes in (self._ready, self._resting))

    @property
    def is_crowded(self) -> bool:
        """Whether anybody waits, or rests, at this moment."""
        return bool(self._ready or self._resting)

    def _take_turns(self) -> None:
        self._timer = None
        now = time.monotonic()
        until = now + _WORK_S
        for network in [network for network in self._resting if not self._allowance.wait_s(network, now)]:
            self._ready[network] = self._resting.pop(network)
        while self._ready and now < until:
            self._take_turn(next(iter(self._ready)), now)
            now = time.monotonic()
        if self._ready:
            self._call_in(0)
        elif self._resting:
            waits = [self._allowance.wait_s(network, now) for network in self._resting]
            self._call_in(max(_REST_S, min(waits)))

    def _take_turn(self, network: str, now: float) -> None:
        if self._allowance.wait_s(network, now):
            self._resting[network] = self._ready.pop(network)
            return
        self._allowance.use(network, now)
        # The address goes last before the command is obeyed, since others can line up, and leave, meanwhile.
        self._ready.move_to_end(network)
        member, _ = self._ready[network].popitem(last=False)
        if member.take_turn():
            self.line_up(member)
        self._drop_if_empty(self._ready, network)

    def _drop_if_empty(self, lanes: dict[str, Lane], network: str) -> None:
        if network in lanes and not lanes[network]:
            del lanes[network]

    def _call_in(self, seconds: float) -> None:
        if self._timer is None or seconds == 0:
            self._stop_timer()
            self._timer = self._ioloop.call_later(seconds, self._take_turns)

    def _stop_timer(self) -> None:
        if self._timer is not None and not self._timer.cancelled:
            self._timer.cancel()
        self._timer = None
