"""What waits for one recipient, and how much of it may go now: so many messages an hour, what is more in one digest.

A recipient is `operator:ADDRESS`, `contributor:NAME`, `webhook` or `command`.
"""

from collections.abc import Sequence

import msgspec

from construir_ftp.news.events import Event

_HOUR_S = 3600.0
# So many events wait for one recipient; of older ones only the number is kept.
_MOST_WAITING = 1000


class Box(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Of one recipient: the events that wait, oldest first, and when messages went, in seconds since the Epoch."""

    events: list[Event] = []
    left_out: int = 0
    sent_s: list[float] = []

    def put(self, event: Event) -> None:
        """Have an event wait; the oldest make room for it where too many do."""
        self.events.append(event)
        surplus = max(0, len(self.events) - _MOST_WAITING)
        del self.events[:surplus]
        self.left_out += surplus

    def due(self, now_s: float, most_per_hour: int) -> Sequence[Event]:
        """What goes into the next message: nothing, if the hour has had its messages.

        All, if there is more than the hour has messages left for; else the oldest event. What is not the end of a job
        does not wait behind those: with something of that kind an hour has twice as many messages.
        """
        left = most_per_hour - len(self._recent(now_s))
        is_urgent = any(event.kind != "job" for event in self.events)
        if not self.events or left + (most_per_hour if is_urgent else 0) <= 0:
            return ()
        return tuple(self.events if self.left_out or len(self.events) > left else self.events[:1])

    def next_s(self, now_s: float, most_per_hour: int) -> float:
        """When a message may go that has to wait for the next hour; `now_s` if none has to."""
        recent = self._recent(now_s)
        is_held = bool(self.events) and not self.due(now_s, most_per_hour)
        return recent[-most_per_hour] + _HOUR_S if is_held and len(recent) >= most_per_hour else now_s

    def told(self, events: Sequence[Event], left_out: int, now_s: float) -> None:
        """These events, and so many that were left out, went in a message."""
        sent = {event.id for event in events}
        self.events = [event for event in self.events if event.id not in sent]
        self.left_out = max(0, self.left_out - left_out)
        self.sent_s = [*self._recent(now_s), now_s]

    def is_empty(self, now_s: float) -> bool:
        """Whether there is nothing to remember of it."""
        return not self.events and not self._recent(now_s)

    def _recent(self, now_s: float) -> list[float]:
        return [sent_s for sent_s in self.sent_s if now_s - _HOUR_S < sent_s <= now_s]
