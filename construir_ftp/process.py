"""The one door to other programs.

`run` is for commands that end and say something; `spawn` is for a child whose life the caller
follows through a pidfd. Every child gets an explicit environment, no standard input unless one
is given, and (for `run`) a deadline. Nothing else in the package starts a program.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import sh

from construir_ftp.errors import CommandError

# The reply of a failed command is quoted in one line of an error; this much of its end is enough.
_QUOTED_BYTES = 400

Argv = Sequence[str | Path]


def environment(**extra: str) -> dict[str, str]:
    """The whole environment a child gets: a system PATH, the C locale, and what the caller adds."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **extra}


def find(program: str) -> str | None:
    """Full path of `program` on the children's PATH, or None."""
    return shutil.which(program, path=environment()["PATH"])


def run(
    argv: Argv,
    *,
    timeout_s: float,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Run a command to its end; return what it printed on standard output (empty if `stdout` took it).

    Raises CommandError if it is missing, fails, or is not done after `timeout_s` seconds (it is
    then killed).
    """
    words = [str(word) for word in argv]
    with Path(os.devnull).open("rb") as nothing:
        special: dict[str, Any] = {
            "_env": env or environment(),
            "_in": stdin or nothing,
            "_timeout": timeout_s,
            "_cwd": str(cwd) if cwd else None,
            "_tty_out": False,
            "_truncate_exc": False,
        }
        if stdout is not None:
            special["_out"] = stdout
        try:
            return str(sh.Command(words[0], search_paths=environment()["PATH"].split(":"))(*words[1:], **special))
        except sh.CommandNotFound as missing:
            raise CommandError(f"{words[0]}: not installed") from missing
        except sh.TimeoutException as late:
            raise CommandError(f"not done after {timeout_s:g} s: {shlex.join(words)}") from late
        except sh.ErrorReturnCode as failed:
            raise CommandError(_failure(words, failed.exit_code, failed.stderr or failed.stdout)) from failed


def _failure(words: Iterable[str], status: int, said: bytes) -> str:
    last_words = said.decode(errors="replace").strip()[-_QUOTED_BYTES:].replace("\n", "; ")
    return f"exit status {status} from: {shlex.join(words)} ({last_words or 'it said nothing'})"


def spawn(
    argv: Argv,
    *,
    pass_fds: Sequence[int] = (),
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.DEVNULL,
    env: dict[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child in its own session and return it; the caller waits for it, and ends it by its pid.

    subprocess rather than sh: the child is started by the calling thread (bwrap's --die-with-parent
    watches that thread), without Python code between fork and exec.
    """
    words = [str(word) for word in argv]
    try:
        return subprocess.Popen(  # noqa: S603 - the one place that starts children; argv is a list, never a shell line
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            env=env or environment(),
            start_new_session=True,
        )
    except FileNotFoundError as missing:
        raise CommandError(f"{words[0]}: not installed") from missing
