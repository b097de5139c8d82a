"""The kinds of error Construir raises, and the exit code each ends the command with.

A message is one line: what, which, and what to do. Only cli prints one and exits.
"""


def one_line(text: object) -> str:
    """Text of unknown origin as part of a message: what can't be printed, such as the end of a line, is a "?"."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


class ConstruirError(Exception):
    """Something Construir can name failed; the message says what to do."""

    exit_code = 1


class UsageError(ConstruirError):
    """The command was asked for something that makes no sense."""

    exit_code = 2


class MachineUnavailableError(ConstruirError):
    """QEMU is missing or can't boot here: our fault, never the job's."""

    exit_code = 69


class ConfigError(ConstruirError):
    """A configuration file says something impossible."""

    exit_code = 78


class CommandError(ConstruirError):
    """Another program failed; the message holds the command, to be pasted into a shell."""


class RefusedError(ConstruirError):
    """An upload is not a job. `reply` is the FTP code (RFC 959) that says so: 550, 552, 553 or 452.

    `is_cut` is true of one that lacks nothing but its end, so that it would be one if the rest of it came.
    """

    def __init__(self, reason: str, reply: int = 550, *, is_cut: bool = False) -> None:
        super().__init__(reason)
        self.reply, self.is_cut = reply, is_cut
