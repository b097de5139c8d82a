"""A group of commands that says what may be meant by a command, or an option, that it doesn't know."""

import os
import shlex
from collections.abc import Iterable
from difflib import SequenceMatcher

import click

from construir_ftp.cli import help_text

# How much alike two words have to be (difflib), and how much less than the most alike one another may be.
_ALIKE, _LESS = 0.6, 0.1


class Group(click.Group):
    """What all groups of ours are."""

    context_class = help_text.Context

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names. Raises NoSuchCommand, with those that may be meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            meant = closest(args[0], self.list_commands(ctx))
            raise click.exceptions.NoSuchCommand(args[0], possibilities=meant, ctx=ctx) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what is before the command. Raises NoSuchOption, also for an option whose place is behind it."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if better := self._behind(ctx, typed, error.option_name):
                text = f"No such option {error.option_name!r} before the command; it goes behind it: {better}"
                raise click.NoSuchOption(error.option_name, text, ctx=ctx) from error
            raise

    def _behind(self, ctx: click.Context, typed: list[str], option: str) -> str:
        """The same words, with what is before the command behind it, if it has that option; empty if not."""
        for number, name in enumerate(typed):
            command = self.get_command(ctx, name) if name in self.list_commands(ctx) else None
            if command is not None:
                known = any(option in parameter.opts for parameter in command.params)
                words = [*typed[number:], *typed[:number]]
                return f"{ctx.command_path} {shlex.join(words)}" if known or isinstance(command, click.Group) else ""
        return ""


def file_meant(option: str, words: Iterable[str]) -> str:
    """The word that was taken for an option which there is not, if there is a file of that name."""
    return next((word for word in words if word.startswith(option) and os.path.lexists(word)), "")


def closest(word: str, names: Iterable[str]) -> list[str]:
    """The names that are about as much like a word as the one that is most like it."""
    ratios = {name: SequenceMatcher(None, name, word).ratio() for name in names}
    least = max(_ALIKE, max(ratios.values(), default=0.0) - _LESS)
    return [name for name, ratio in ratios.items() if ratio >= least]
