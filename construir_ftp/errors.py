"""The kinds of error Construir raises, and the exit code each ends the command with.

A message is one line: what, which, and what to do. Only cli prints one and exits. The codes are those of sysexits(3)
where it has one; a job's end has others, see `exit_code_of`.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a command that waits for a job ends with where there is no code of the job's own: 124 and 126 as timeout(1) and
# the shells have them.
_ENDS = {
    "lost": 70,
    "no-result": 71,
    "dependency-failed": 72,
    "cancelled": 73,
    "timeout": 124,
    "idle-timeout": 124,
    "failed": 126,
}


def exit_code_of(status: str, exit_code: int | None) -> int:
    """What a command ends with that has followed a job to its end; 0 means `success`, and nothing else."""
    if status == "success":
        return 0
    if status == "failed" and exit_code is not None:
        return exit_code & 0xFF or 1
    return _ENDS.get(status, 1)


# What a call of the system fails by that would do at another time, or on another computer.
_OF_THE_COMPUTER = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def is_of_the_computer(error: BaseException) -> bool:
    """Whether it says that this computer lacks something, and nothing about what was asked for."""
    return isinstance(error, OSError) and error.errno in _OF_THE_COMPUTER


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


class JobError(ConstruirError):
    """What the job itself is the cause of, such as a file system that can't be made larger: it would end so again."""


class StoppedError(ConstruirError):
    """What was waited for is not wanted any more: whoever waited was told to stop."""


class UnreachableError(ConstruirError):
    """There is no server where one was looked for, or none that lasts."""

    exit_code = 69


class MissingError(ConstruirError):
    """What was asked for by name is not there."""

    exit_code = 66


class DamagedError(ConstruirError):
    """What has come is not what was to come."""

    exit_code = 74


class TryLaterError(ConstruirError):
    """The server can't do now what it can do at another time."""

    exit_code = 75


class AnswerError(ConstruirError):
    """The server says what makes no sense here."""

    exit_code = 76


class LoginError(ConstruirError):
    """The server lets nobody of that name and password in."""

    exit_code = 77


class UntrustedError(ConstruirError):
    """What has come is not signed by a key that is known for it, but by the one with this fingerprint, or by none."""

    exit_code = 79

    def __init__(self, reason: str, fingerprint: str = "") -> None:
        super().__init__(reason)
        self.fingerprint = fingerprint


# What brings all libraries of an appliance, in a checkout: setup.cfg has the extra.
INSTALL = "pip install '.[appliance]'"

# The package on PyPI that has a module, where it is called otherwise.
_PACKAGES = {
    "argon2": "argon2-cffi",
    "elftools": "pyelftools",
    "magic": "python-magic",
    "prometheus_client": "prometheus-client",
}


class MissingLibraryError(MachineUnavailableError):
    """`what` needs a Python module that is not installed, or is not to be had on this system."""

    def __init__(self, what: str, module: str) -> None:
        library = module.partition(".")[0]
        super().__init__(
            f"{what} needs Construir's part for appliances, which works on Linux, and here"
            f" {_PACKAGES.get(library, library)} is missing; in a checkout of Construir, run: deploy/prepare,"
            f" on Debian; elsewhere: {INSTALL}"
        )


class ConfigError(ConstruirError):
    """A configuration file, or the environment, says something impossible."""

    exit_code = 78


class BaseImageError(ConstruirError):
    """A base image is not there, or not whole. `remedy` begins with the command that builds it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; run: {remedy}")
        self.what, self.remedy = what, remedy


class CommandError(ConstruirError):
    """Another program failed; the message holds the command, to be pasted into a shell.

    `said` is the end of what it printed, and then of what it complained of, in lines; empty where it said nothing.
    """

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class RefusedError(ConstruirError):
    """An upload is not a job. `reply` is the FTP code (RFC 959) that says so: 550, 552, 553 or 452.

    `is_cut` is true of one that lacks nothing but its end, so that it would be one if the rest of it came.
    """

    exit_code = 65

    def __init__(self, reason: str, reply: int = 550, *, is_cut: bool = False) -> None:
        super().__init__(reason)
        if reply < 500:
            self.exit_code = TryLaterError.exit_code
        self.reply, self.is_cut = reply, is_cut

    def naming(self, placeholder: str, name: str) -> "RefusedError":
        """The same, with `name` for the word that holds its place in the cure."""
        text = re.sub(rf"\b{placeholder}\b", lambda _: name, str(self))
        return RefusedError(text, self.reply, is_cut=self.is_cut)

    def is_lasting(self) -> bool:
        """Whether it would be refused again later (RFC 959, 4.2.1: 5yz)."""
        return self.reply >= 500

    def as_reply(self) -> str:
        """The one line of FTP that says so."""
        return f"{self.reply} Refused: {one_line(self)}"


@contextmanager
def plainly(what: Path) -> Iterator[None]:
    """Within, an OSError is said in one line, as a ConstruirError; of `what`, where it names no file itself."""
    try:
        yield
    except OSError as error:
        raise ConstruirError(f"{error.filename or what}: {error.strerror}") from error
