"""The help that commands print, in lines that end at no hyphen, so that options and paths stay whole."""

from collections.abc import Iterable

import click

_HYPHEN = "\N{NON-BREAKING HYPHEN}"


class _WholeWords(click.HelpFormatter):
    """Wraps lines at spaces only."""

    def write(self, string: str) -> None:
        """Add a piece, as it will be seen."""
        super().write(string.replace(_HYPHEN, "-"))

    def write_text(self, text: str) -> None:
        """Add paragraphs."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Add a list of terms, and what they mean."""
        super().write_dl([(term, text.replace("-", _HYPHEN)) for term, text in rows], col_max, col_spacing)


class Context(click.Context):
    """What a command runs in that has such help."""

    formatter_class = _WholeWords


def with_whole_words(command: click.Command) -> click.Command:
    """The command, with such help."""
    command.context_class = Context
    return command
