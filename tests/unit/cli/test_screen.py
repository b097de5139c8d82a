"""What a job printed, on a terminal and into a file."""

import os
import pty
import sys
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from construir_ftp.cli.screen import Screen


def drawn(monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> bytes:
    """What a terminal gets of these pieces."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        screen = Screen()
        for piece in pieces:
            screen.show(piece)
        screen.close()
        monkeypatch.undo()
    with os.fdopen(master, "rb", buffering=0) as other_end:
        return b"".join(_all_of(other_end))


def _all_of(other_end: IO[bytes]) -> Iterator[bytes]:
    with suppress(OSError):  # EIO after the last byte, since nobody has the terminal open
        while piece := other_end.read(65536):
            yield piece


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"plain \xc3\xa4\ttext\r\n10 %\r20 %\n", b"plain \xc3\xa4\ttext\r\n10 %\r20 %\n"),
        (b"\x1b[1;31mred\x1b[m", b"\x1b[1;31mred\x1b[m\x1b[0m"),
        (b"\x1b[38:2::1:2:3mred", b"\x1b[38:2::1:2:3mred\x1b[0m"),
        (b"\x1b]52;c;cm0gLXJm\x07", b"\\x1b]52;c;cm0gLXJm\\x07"),
        (b"\x1b[2J\x1bc\x1b[6n", b"\\x1b[2J\\x1bc\\x1b[6n"),
        (b"\x1b[?25l\x1b[31;", b"\\x1b[?25l\\x1b[31;"),
        (b"\x08\x00\x0b\x7f", b"\\x08\\x00\\x0b\\x7f"),
        ("\x9b31m\u202ex".encode(), b"\\x9b31m\\u202ex"),
        (b"\xff\x1b", "\ufffd\\x1b".encode()),
    ],
)
def test_only_text_and_colours_reach_a_terminal_however_they_come(
    said: bytes, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawn(monkeypatch, said) == shown
    assert drawn(monkeypatch, *(bytes([byte]) for byte in said)) == shown


def test_a_long_sequence_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    said = b"\x1b[" + b"1;" * 100 + b"m"
    assert drawn(monkeypatch, said[:80], said[80:]) == b"\\x1b[" + b"1;" * 100 + b"m"


def test_a_file_gets_the_bytes_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = bytes(range(256))
    with (tmp_path / "said").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        screen = Screen()
        screen.show(said[:100])
        screen.show(said[100:])
        screen.close()
    assert (tmp_path / "said").read_bytes() == said
