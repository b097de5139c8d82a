"""Tools in a jail, each with a deadline by the clock: what reads or writes hostile bytes and then ends.

tools.run(cell, argv, timeout_s)                                    to its end
with tools.start(cell, argv, timeout_s, stdin=...) as tool: ...     fed, or read from, meanwhile
"""

import os
import selectors
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import msgspec

from construir_ftp.errors import CommandError
from construir_ftp.jail import jail
from construir_ftp.jail.cell import Cell
from construir_ftp.jail.jail import Stream
from construir_ftp.jail.prisoner import Prisoner

# What is kept of the output of a tool that is expected to say little, and what is quoted of its complaints.
MOST_SAID_BYTES = 2**20
_QUOTED_CHARACTERS = 400
_WORDS_BYTES = 4096
_PIECE_BYTES = 64 * 1024


class Tool:
    """A program at work in a jail, whose deadline is near. What comes by `stdout` is to be read before `end`."""

    def __init__(self, prisoner: Prisoner, argv: Sequence[str | Path], timeout_s: float) -> None:
        self._prisoner, self._argv, self._timeout_s = prisoner, argv, timeout_s
        self._is_late = False
        self._deadline = threading.Timer(timeout_s, self._kill)
        self._deadline.start()

    @property
    def stdin(self) -> IO[bytes]:
        """What it reads, if that was asked for."""
        return cast(IO[bytes], self._prisoner.process.stdin)

    @property
    def stdout(self) -> IO[bytes]:
        """What it writes."""
        return cast(IO[bytes], self._prisoner.process.stdout)

    def end(self) -> "Ended":
        """Wait until it has ended; its output has been read. Raises CommandError if its deadline came first."""
        return self.read_all(0)

    def read_all(self, most_bytes: int) -> "Ended":
        """The same, and the first `most_bytes` of what is still to come of its output. All of it is read: a tool must
        not wait for a reader, nor end by SIGPIPE in the middle of what it does.
        """
        pipes = {pipe: bytearray() for pipe in (self.stdout, cast(IO[bytes], self._prisoner.process.stderr))}
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    pipe = cast(IO[bytes], key.fileobj)
                    if said := os.read(pipe.fileno(), _PIECE_BYTES):
                        _keep(pipes[pipe], said, most_bytes if pipe is self.stdout else None)
                    else:
                        selector.unregister(pipe)
        status = self._prisoner.process.wait()
        if self._is_late:
            raise CommandError(f"not done after {self._timeout_s:g} s: {shlex.join(map(str, self._argv))}")
        output, words = pipes.values()
        return Ended(tuple(map(str, self._argv)), status, words.decode(errors="replace").strip(), bytes(output))

    def close(self) -> None:
        """Have no deadline any more."""
        self._deadline.cancel()

    def _kill(self) -> None:
        self._is_late = True
        self._prisoner.kill()


def _keep(kept: bytearray, said: bytes, first_bytes: int | None) -> None:
    """Have the first so many bytes of what a pipe has said; without a number the last, as far as they are quoted."""
    if first_bytes is None:
        kept += said
        del kept[:-_WORDS_BYTES]
    else:
        kept += said[: max(0, first_bytes - len(kept))]


class Ended(msgspec.Struct, frozen=True):
    """How a tool ended: its exit status, the last that it said on standard error, and what was kept of its output."""

    argv: tuple[str, ...]
    status: int
    words: str
    output: bytes = b""

    def check(self) -> None:
        """Raises CommandError, with its last words, if it failed."""
        if self.status:
            last_words = ascii(self.words[-_QUOTED_CHARACTERS:])
            raise CommandError(f"exit status {self.status} from: {shlex.join(self.argv)} ({last_words})")


@contextmanager
def start(
    cell: Cell, argv: Sequence[str | Path], timeout_s: float, *, stdin: Stream = subprocess.DEVNULL
) -> Iterator[Tool]:
    """Run a tool in a jail of this host, and no longer than `timeout_s` seconds; dead on leaving the context."""
    with jail.host().hold(cell, argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as prisoner:
        tool = Tool(prisoner, argv, timeout_s)
        try:
            yield tool
        finally:
            tool.close()


def run(
    cell: Cell,
    argv: Sequence[str | Path],
    timeout_s: float,
    *,
    stdin: Stream = subprocess.DEVNULL,
    most_bytes: int = MOST_SAID_BYTES,
) -> Ended:
    """Run a tool in a jail of this host to its end. Of what it writes the first `most_bytes` are kept.

    Raises CommandError if it is not done after `timeout_s` seconds; what its status means is for the caller.
    """
    with start(cell, argv, timeout_s, stdin=stdin) as tool:
        return tool.read_all(most_bytes)
