"""The event loop: what happens to one of its members is no other's business."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pyftpdlib.ioloop import AsyncChat

from construir_ftp.ftp.ioloop import Loop


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
