"""A module for each place where bytes come in from outside: `target` is a context manager, within which there is a
function that takes one input, and one that waits until nothing of the inputs before is under way.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

Attempt: TypeAlias = Callable[[bytes], None]
Settle: TypeAlias = Callable[[], None]
Target: TypeAlias = Callable[[], AbstractContextManager[tuple[Attempt, Settle]]]

_LONGEST_CHARACTERS = 4000


def alone(attempt: Attempt) -> Target:
    """A target that is a function, and has nothing under way when that has returned."""

    @contextmanager
    def target() -> Iterator[tuple[Attempt, Settle]]:
        yield attempt, lambda: None

    return target


def demand_line(text: str) -> None:
    """What people are told is one line that can be printed."""
    assert text, "nothing is said"
    assert text.isprintable(), f"more than a line: {text!a}"
    assert len(text) <= _LONGEST_CHARACTERS, f"{len(text)} characters: {text[:200]!a}"
