"""What passes between a terminal and a machine: scripts typed at the right moment, sequences that only draw."""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from construir_ftp.machine.terminal import Strainer, Terminal, Typist

LOGIN = [b"\r\nconstruir login: ", b"root\r\nPassword: ", b"\r\nLinux construir #1 SMP\r\nroot@construir:~# "]


def strained(*blocks: bytes) -> bytes:
    strainer = Strainer()
    return b"".join(strainer.strain(block) for block in blocks)


# -- what a machine says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"plain \xc3\xa4\xc2\xa0 text\r\n", b"plain \xc3\xa4\xc2\xa0 text\r\n"),
        (b"\x1b[31mred\x1b[m\x1b[2J\x1b(B\x1b7\x1b8", b"\x1b[31mred\x1b[m\x1b[2J\x1b(B\x1b7\x1b8"),
        (b"a\x1b]52;c;cm0gLXJm\x07b", b"ab"),
        (b"a\x1b]0;title\x1b\\b", b"ab"),
        (b"a\x1bPq#0;2;0;0;0~\x1b\\b\x1b_app\x1b\\c\x1b^pm\x1b\\d\x1bXsos\x1b\\e", b"abcde"),
        (b"a\x1b]unended\r\nnext line", b"a\nnext line"),
        (b"a\x1b]unended\x1b[31mred", b"a\x1b[31mred"),
        (b"a\x1b[5isecret\x1b[4ib\x1b[?5ic", b"asecretbc"),
        (b"a\xc2\x9d52;c;x\xc2\x9cb", b"a52;c;xb"),
        # What is left when something is left out is no sequence, nor is one that a control character is in.
        (b"\x1b\xc2\x9d]52;c;cm0=\x07", b"]52;c;cm0=\x07"),
        (b"\x1b[\xc2\x9d5i", b"[5i"),
        (b"\x1b\x1b[5i]52;c;cm0=\x07", b"]52;c;cm0=\x07"),
        (b"\x1b\x08]52;c;cm0=\x07", b"\x08]52;c;cm0=\x07"),
        (b"\x1b[5\x08i\x1b[05i\x1b[1;5i", b"[5\x08i"),
        (b"a\xc2\x1b\x9d52;c;x\x07\xc2\xa0", b"a\x9d52;c;x\x07\xc2\xa0"),
        (b"\x1b%@\x9d52;c;cm0=\x07", b"%@\x9d52;c;cm0=\x07"),
    ],
)
def test_only_what_draws_passes(said: bytes, shown: bytes) -> None:
    assert strained(said, b".") == shown + b"."


@given(
    st.lists(
        st.sampled_from(
            [b"\x1b", b"]", b"P", b"[", b"5i", b"5", b"%", b"(", b"a", b"\\", b"\x07", b"\n", b"\xc2", b"\x9d", b"?"]
        )
    )
)
def test_what_passes_does_not_depend_on_how_it_was_cut(pieces: list[bytes]) -> None:
    assert strained(*pieces, b"\n") == strained(b"".join(pieces) + b"\n")


def test_endless_string_takes_no_memory() -> None:
    strainer = Strainer()
    assert strainer.strain(b"\x1b]52;c;") == b""
    for _ in range(100):
        assert strainer.strain(b"x" * 10_000) == b""
    assert len(strainer._held) < 10
    assert strainer.strain(b"\x07shown") == b"shown"


# -- what is typed -------------------------------------------------------------------------------------------


def test_script_waits_for_each_prompt_of_a_login() -> None:
    typist = Typist()
    assert typist.take(b"root\nvagrant\nls\nps\n") == b""
    assert [typist.hear(said) for said in LOGIN] == [b"root\n", b"vagrant\n", b"ls\nps\n"]
    assert typist.take(b"df\n") == b"df\n"


def test_prompt_waits_for_each_line_of_a_script() -> None:
    typist = Typist()
    assert typist.hear(LOGIN[0]) == b""
    assert typist.take(b"ro") == b""
    assert typist.take(b"ot\nvagrant\n") == b"root\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_prompt_is_seen_however_it_is_cut(size: int) -> None:
    typist = Typist()
    typist.take(b"root\nvagrant\nls\n")
    said = b"".join(LOGIN)
    typed = [typist.hear(said[at : at + size]) for at in range(0, len(said), size)]
    assert [word for word in typed if word] == [b"root\n", b"vagrant\n", b"ls\n"]


def test_last_line_is_ended_and_the_end_is_told_as_often_as_asked() -> None:
    typist = Typist()
    typist.take(b"root\nvagrant\nls")
    for said in LOGIN:
        typist.hear(said)
    assert typist.nudge() == b""
    assert typist.take(b"") == b"\n"
    assert (typist.nudge(), typist.nudge()) == (b"\x04", b"\x04")


def test_end_is_not_told_before_the_script_has_been_typed() -> None:
    typist = Typist()
    typist.take(b"root\n")
    typist.take(b"")
    assert typist.nudge() == b""
    assert typist.hear(LOGIN[0]) == b"root\n"
    assert typist.nudge() == b"\x04"


# -- neither end a terminal ------------------------------------------------------------------------------------


def test_pipe_gets_every_byte_as_it_was_said() -> None:
    keys, typing = os.pipe()
    showing, screen = os.pipe()
    stop, stopping = socket.socketpair()
    with stop, stopping:
        terminal = Terminal(keys, screen, "xterm")
        assert (terminal.kind, terminal.size(), terminal.is_persons) == ("dumb", (0, 0), False)
        terminal.show(b"\x1b]0;title\x07", stop)
        assert os.read(showing, 100) == b"\x1b]0;title\x07"
        stopping.send(b"!")
        terminal.show(bytes(2**20), stop)  # more than a pipe holds: would wait for ever
    for descriptor in (keys, typing, showing, screen):
        os.close(descriptor)
