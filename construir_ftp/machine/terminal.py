"""Whoever sits at a machine: a person at a terminal, or a script that is typed for them.

Owns the terminal's mode, which is always put back, the key that ends the visit, and what a machine may have the
terminal do. Knows nothing of machines: bytes go from one side to the other.
"""

import os
import re
import select
import socket
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

END_KEY, END_KEY_NAME = b"\x1d", "Ctrl-]"

_READ_BYTES = 4096
_END_OF_FILE = b"\x04"  # Ctrl-D
_LONGEST_PROMPT_BYTES = 128
# What a program may have left on: another screen than the main one, mouse and focus reports, bracketed paste; then a
# soft reset, DECSTR, of colours, cursor, margins and character sets (xterm's ctlseqs.txt).
_TIDY = b"\x1b[?1047l\x1b[?1000;1002;1003;1004;1006;2004l\x1b[!p"
_KINDS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,39}")


class Terminal:
    """Where keys come from and what a machine says goes to: two descriptors, each of a terminal, a file or a pipe."""

    def __init__(self, keys: int, screen: int, kind: str) -> None:
        """`kind` is what the environment calls the terminal: TERM."""
        self.keys = keys
        self.has_left = False
        self.is_exhausted = False
        self._screen = screen
        self._typist = None if os.isatty(keys) else Typist()
        self._strainer = Strainer() if os.isatty(screen) else None
        self._kind = kind

    @property
    def is_persons(self) -> bool:
        """Whether keys are pressed, not read from a script."""
        return self._typist is None

    @property
    def kind(self) -> str:
        """terminfo(5)'s name for it; "dumb" where nobody looks at it."""
        if self._typist or not self._strainer:
            return "dumb"
        return self._kind if _KINDS.fullmatch(self._kind) else "vt100"

    def size(self) -> tuple[int, int]:
        """Rows and columns; zeros where there are none."""
        try:
            columns, rows = os.get_terminal_size(self._screen)
        except OSError:
            return 0, 0
        return rows, columns

    @contextmanager
    def raw(self) -> Iterator[None]:
        """While the context lasts every key is passed on, Ctrl-C too. Afterwards the terminal is as it was before.

        What it was made to answer last, or was typed by someone who had not noticed the end, is thrown away: it is not
        for whoever reads next.
        """
        try:
            before = termios.tcgetattr(self.keys) if self._typist is None else None
            if before:
                tty.setraw(self.keys)
            yield
        finally:
            with suppress(OSError, termios.error):  # it may be gone: that is no reason to fail
                if self._strainer and self._kind not in ("", "dumb"):
                    os.write(self._screen, _TIDY)
                if before:
                    termios.tcsetattr(self.keys, termios.TCSAFLUSH, before)

    def read(self) -> bytes:
        """What is to be typed after some of `keys` has come; sets `has_left` once the visit is to end at once, and
        `is_exhausted` once no more will come.
        """
        try:
            data = os.read(self.keys, _READ_BYTES)
        except OSError:
            if self._typist:
                raise
            data = b""  # EIO: its terminal was closed
        if self._typist:
            self.is_exhausted = not data
            return self._typist.take(data)
        typed, end, _ = data.partition(END_KEY)
        self.has_left = bool(end) or not data
        return typed

    def show(self, said: bytes, stop: socket.socket) -> bytes:
        """Pass on what a machine says, and wait for whoever reads it, but not once `stop` is readable.

        Returns what is to be typed in answer.
        """
        left = memoryview(self._strainer.strain(said) if self._strainer else said)
        while left:
            stopped, _, _ = select.select([stop], [self._screen], [])
            if stopped:
                break
            # A pipe that can be written to has room for that much (pipe(7)): more would wait, whatever `stop` says.
            left = left[os.write(self._screen, left[: select.PIPE_BUF]) :]
        return self._typist.hear(said) if self._typist else b""

    def nudge(self) -> bytes:
        """What is to be typed when nothing else has been for a while."""
        return self._typist.nudge() if self._typist else b""


class Typist:
    """Types a script at a login as a person would: a name when asked for one, a password, and then, at the shell's
    prompt, the rest. What is typed before is thrown away: agetty(8), PAM and login(1) flush their input.
    """

    def __init__(self) -> None:
        self._prompts = [rb"login: ", rb"Password: ", rb"# |incorrect\s+\S+ login: "]
        self._is_asked = False
        self._heard = b""
        self._left = b""
        self._in_line = False
        self._has_ended = False

    def take(self, script: bytes) -> bytes:
        """More of the script, nothing at its end; returns what can be typed now."""
        if script:
            self._left += script
            self._in_line = not script.endswith(b"\n")
        else:
            self._left += b"\n" if self._in_line else b""
            self._has_ended = True
        return self._due()

    def hear(self, said: bytes) -> bytes:
        """Something was said; returns what can be typed now."""
        self._heard += said
        self._is_asked = self._is_asked or re.search(self._prompts[0], self._heard) is not None
        # A prompt may come in parts.
        self._heard = b"" if self._is_asked else self._heard[-_LONGEST_PROMPT_BYTES:]
        return self._due()

    def nudge(self) -> bytes:
        """What says that the script is at its end, once it is; whatever is running may take it."""
        return _END_OF_FILE if self._has_ended and not self._left else b""

    def _due(self) -> bytes:
        if not self._is_asked:
            return b""
        if len(self._prompts) == 1:
            rest, self._left = self._left, b""
            return rest
        line, newline, rest = self._left.partition(b"\n")
        if not newline:
            return b""
        del self._prompts[0]
        self._left, self._is_asked = rest, False
        return line + newline


class Strainer:
    """What a machine says, without what would have a terminal do more than draw.

    Left out are control strings (ECMA-48, 5.6: OSC, DCS, APC, PM, SOS), which set titles and clipboards, define keys
    and make terminals type what they are told; the printer's switch; and whatever is no whole sequence. Colours and
    cursors pass.
    """

    # One that is not ended by BEL, ST or a line's end is left out up to where another sequence begins.
    _STRING = rb"\x1b[P\]X^_][^\x07\x18\x1a\x1b\n]*(?:\x07|\x1b\\)?"
    _BEGUN = rb"\x1b\[[0-?]{0,64}[ -/]{0,4}"
    _PRINTER = _BEGUN + rb"i"
    # The same as single characters, in UTF-8; and what may become one when something after it is left out.
    _C1 = rb"\xc2(?:[\x80-\x9f]|(?![\xa0-\xbf]))"
    # Sequences without anything in between: within one, terminals obey control characters and then go on with it. None
    # with "%": that switches UTF-8 off, and has other bytes be C1.
    _DRAWS = rb"(" + _BEGUN + rb"[@-hj-~]|\x1b[ -$&-/]{1,4}[0-~]|\x1b[0-OQ-WYZ\\`-~])"
    # An ESC that begins none of these goes alone: without it, what comes next is text, whatever it is put together to.
    _SEQUENCES = re.compile(b"|".join((_STRING, _PRINTER, _C1, _DRAWS, rb"\x1b")))
    # What may become one of these, at the end of what has been said so far.
    _UNFINISHED = re.compile(rb"(?:\x1b[P\]X^_][^\x07\x18\x1a\x1b\n]*\x1b?|" + _BEGUN + rb"|\x1b[ -$&-/]{0,4}|\xc2)\Z")
    _STRINGS = (b"\x1bP", b"\x1b]", b"\x1bX", b"\x1b^", b"\x1b_")

    def __init__(self) -> None:
        self._held = b""

    def strain(self, said: bytes) -> bytes:
        """What of it may pass now; the beginning of a sequence waits for its end."""
        text = self._held + said
        unfinished = self._UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else b""
        passed = text[: len(text) - len(self._held)]
        if self._held.startswith(self._STRINGS):
            # What a string holds does not matter: it may be as long as it likes.
            self._held = self._held[:2] + self._held[2:][-1:]
        return self._SEQUENCES.sub(lambda found: found[1] or b"", passed)
