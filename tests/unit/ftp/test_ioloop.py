"""The event loop: what happens to one of its members is no other's business."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pyftpdlib.ioloop import AsyncChat

from construir_ftp.ftp.ioloop import Background, Bell, Loop


class Member(AsyncChat):  # type: ignore[misc] # pyftpdlib is untyped
    """Does what it is told when it has something to read, and notes its end."""

    def __init__(self, sock: socket.socket, loop: Loop, act: Callable[[], None] = lambda: None) -> None:
        super().__init__(sock, loop)
        self.act, self.has_ended = act, False

    def readable(self) -> bool:
        """Always: it is only ever read from."""
        return True

    def handle_read_event(self) -> None:
        """Called when there is something to read."""
        self.act()

    def handle_close(self) -> None:
        """Called when the other end is gone."""
        self.has_ended = True
        self.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def test_newcomer_is_not_taken_for_who_had_its_descriptor_before(loop: Loop) -> None:
    with ExitStack() as stack:
        pairs = [tuple(map(stack.enter_context, socket.socketpair())) for _ in range(2)]
        (ours, theirs), (lost, others) = pairs
        newcomers: list[Member] = []
        leaving = Member(lost, loop)
        # Of its end alone the loop is to hear, as of a connection that is reset.
        loop.modify(lost.fileno(), 0)

        def act() -> None:
            descriptor = lost.fileno()
            leaving.close()
            fresh, _ = map(stack.enter_context, socket.socketpair())
            assert fresh.fileno() == descriptor, "the lowest that is free (open(2))"
            newcomers.append(Member(fresh, loop))

        Member(ours, loop, act)
        theirs.send(b"!")
        others.close()
        loop.poll(0)
        assert not leaving.has_ended
        assert [newcomer.has_ended for newcomer in newcomers] == [False]
        assert newcomers[0]._fileno in loop.socket_map


def test_member_that_leaves_and_comes_back_is_served(loop: Loop) -> None:
    with ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        served = []
        member = Member(ours, loop, lambda: served.append(ours.recv(1)))
        member.del_channel()
        theirs.send(b"!")
        loop.poll(0)
        assert served == []
        member.add_channel()
        loop.poll(0)
        assert served == [b"!"]


# -- the background --------------------------------------------------------------------------------------------


@pytest.fixture
def background(loop: Loop) -> Iterator[Background]:
    background = Background(Bell(loop))
    yield background
    background.close()


def fail() -> str:
    raise ZeroDivisionError


def test_what_is_read_is_read_in_turns_among_those_whom_it_is_for(loop: Loop, background: Background) -> None:
    """One who asks for much at once, from many sessions, is not served before another who asks for little."""
    begins, answers = threading.Event(), list[str]()
    background.read(lambda: str(begins.wait()), lambda _: None, of="a")
    for of, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")):
        background.read(lambda name=name: name, answers.append, of=of)  # type: ignore[misc]
    begins.set()
    while len(answers) < 6:
        loop.poll(None)
    assert answers == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_reading_goes_on_after_an_error_in_it(loop: Loop, background: Background) -> None:
    answers = list[str]()
    background.read(fail, answers.append)
    background.read(lambda: "read", answers.append)
    while not answers:
        loop.poll(None)
    assert answers == ["read"]


def test_all_that_is_to_be_read_is_answered_before_the_background_ends(loop: Loop) -> None:
    background, begins, answers = Background(Bell(loop)), threading.Event(), list[str]()
    for number in range(5):
        background.read(lambda number=number: f"{begins.wait()} {number}", answers.append)  # type: ignore[misc]
    begins.set()
    background.close()
    assert sorted(answers) == [f"True {number}" for number in range(5)]
