"""What a job printed, on standard output. On a terminal it can do no more than write and colour; a pipe or a file gets
the bytes as they are.
"""

import codecs
import re
import sys

import click

from construir_ftp.cli.options import printable

# Select Graphic Rendition: colours, bold and the like (ECMA-48, 8.3.117). It changes nothing but how letters look.
_RENDITION = re.compile(r"(\x1b\[[0-9;:]{0,64}m)")
_USUAL = "\x1b[0m"
# What may become one, at the end of what has come so far.
_UNFINISHED = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?\Z")


class Screen:
    """Standard output, for one job."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._is_coloured = False

    def show(self, said: bytes) -> None:
        """Print what has come next. On a terminal the beginning of a sequence waits for its end."""
        if self._is_terminal:
            self._draw(self._decoder.decode(said))
        else:
            click.echo(said, nl=False)

    def rest(self) -> None:
        """Print what waits, and leave colours as they were before: something else is to be printed, or nothing more."""
        if self._is_terminal:
            self._draw(self._decoder.decode(b"", final=True), is_last=True)
            if self._is_coloured:
                click.echo(_USUAL, nl=False)
                self._is_coloured = False

    def close(self) -> None:
        """The same, at the end."""
        self.rest()

    def _draw(self, text: str, *, is_last: bool = False) -> None:
        text = self._held + text
        unfinished = None if is_last else _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        words = _RENDITION.split(text[: len(text) - len(self._held)])
        self._is_coloured = self._is_coloured or len(words) > 1
        words[::2] = map(_written, words[::2])
        click.echo("".join(words), nl=False)


def _written(text: str) -> str:
    """Without what a terminal would obey; a line may be begun again, as progress bars do."""
    return "\r".join(printable(part) for part in text.split("\r"))
