"""The one door to other programs.

`run` is for commands that end and say something, `capture` for such on contributors' machines; `spawn` is for a child
whose life the caller follows through a pidfd. Every child gets an explicit environment, no standard input unless one
is given, and (for `run`) a deadline. Nothing else in the package starts a program.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from construir_ftp.errors import CommandError, MissingLibraryError

if TYPE_CHECKING:
    import sh

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The reply of a failed command is quoted in one line of an error; this much of its end is enough.
_QUOTED_BYTES = 400
# Where somebody else takes the output, so much of what a command complains of is kept.
_KEPT_CHUNKS, _CHUNK_BYTES = 64, 4096
# How often `meanwhile` is called.
_LOOK_S = 0.05
# What is to end does so within this, or is killed.
_GRACE_S = 5.0

# All commands start in the background, so that there is a process group to kill; a session of its own makes it one.
_USUAL = {
    "_tty_out": False,
    "_truncate_exc": False,
    "_decode_errors": "replace",
    "_bg": True,
    "_bg_exc": False,
    "_new_session": True,
}

Argv = Sequence[str | Path]


def environment(**extra: str) -> dict[str, str]:
    """The whole environment a child gets: a system PATH, the C locale, and what the caller adds."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **extra}


def boot_id() -> str:
    """Which start of this computer's kernel it is (random(4)): no process of another one lives."""
    return _BOOT_ID.read_text().strip()


def ourselves(*words: str | Path) -> list[str]:
    """A command of ours, by this Python: nothing is imported from the directory that somebody has started it in."""
    return [sys.executable, "-P", "-m", "construir_ftp", *map(str, words)]


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
    meanwhile: Callable[[], None] | None = None,
    lock: int | None = None,
) -> str:
    """Run a command to its end; return what it printed on standard output, nothing where `stdout` took it.

    With `stdout` the last 256 KiB of its standard error are kept. What isn't UTF-8 is replaced. Raises CommandError if
    the command is missing, fails, or is not done after `timeout_s` seconds; whatever it started is then killed with it.
    So it is if `meanwhile`, which is called again and again until it has ended, raises anything.

    With `lock`, a descriptor of a file that is locked (locks), the command holds the lock, too, and ends with the
    calling thread, even if that is killed: whoever gets the lock next is alone.
    """
    try:
        import sh  # here, since contributors' commands do without, as Windows does
    except ImportError as missing:
        raise MissingLibraryError(f"starting {argv[0]}", "sh") from missing
    words = list(map(str, argv))
    if cwd and not cwd.is_dir():  # sh 2.4 would leak its pipes over this
        raise CommandError(f"no directory {cwd} to start in: {shlex.join(words)}")
    with Path(os.devnull).open("rb") as nothing:
        special: dict[str, Any] = {
            "_env": env or environment(),
            "_in": stdin or nothing,
            "_timeout": timeout_s,
            "_cwd": str(cwd) if cwd else None,
            **_USUAL,
            **(_taken_by(stdout) if stdout is not None else {}),
            **(_handed_over(lock) if lock is not None else {}),
        }
        try:
            program = sh.Command(words[0], search_paths=_search())
            command = program if lock is None else _ending_with_us(program, timeout_s)
            return _outcome(command(*words[1:], **special), meanwhile)
        except sh.CommandNotFound as missing:
            raise CommandError(f"{words[0]}: not installed") from missing
        except sh.TimeoutException as late:
            raise CommandError(f"not done after {timeout_s:g} s: {shlex.join(words)}") from late
        except sh.ErrorReturnCode as failed:
            raise _failure(words, failed.exit_code, failed.stdout, failed.stderr) from failed
        except sh.ForkException as failed:
            reason = str(failed).strip().splitlines()[-1].strip()
            raise CommandError(f"can't be started ({reason}): {shlex.join(words)}") from failed


def _search() -> list[str]:
    return environment()["PATH"].split(":")


def _taken_by(stdout: IO[bytes]) -> dict[str, Any]:
    """The options by which a file takes the output, and memory no more than the end of what is complained of."""
    return {"_out": stdout, "_err_bufsize": _CHUNK_BYTES, "_internal_bufsize": _KEPT_CHUNKS}


def _handed_over(descriptor: int) -> dict[str, Any]:
    """The options by which a command inherits a descriptor, and no other child does."""
    return {"_pass_fds": {descriptor}, "_preexec_fn": lambda: os.set_inheritable(descriptor, True)}


def _ending_with_us(program: "sh.Command", timeout_s: float) -> "sh.Command":
    """A program that ends, with all of its process group, when the calling thread does.

    The signal goes to timeout(1), which passes it on to the group. The limit is for a caller that is gone before
    setpriv runs; as long as it lives it is earlier.
    """
    import sh

    bound = ["timeout", f"--kill-after={_GRACE_S:g}", f"{timeout_s + _GRACE_S:g}"]
    return sh.Command("setpriv", search_paths=_search()).bake("--pdeathsig", "TERM", *bound, str(program))


def _outcome(running: "sh.RunningCommand", meanwhile: Callable[[], None] | None) -> str:
    """What the command printed, once it has ended. If it failed, is late or we are interrupted, nothing of it lives."""
    try:
        while meanwhile is not None and running.is_alive():
            meanwhile()
            time.sleep(_LOOK_S)
        running.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pgid, signal.SIGKILL)
        running.process.wait()
        raise
    return str(running)


def _failure(words: Iterable[str], status: int, printed: bytes, complained: bytes = b"") -> CommandError:
    said = [text.decode(errors="replace").strip()[-_QUOTED_BYTES:] for text in (printed, complained) if text.strip()]
    last_words = said[-1].replace("\n", "; ") if said else "it said nothing"
    return CommandError(f"exit status {status} from: {shlex.join(words)} ({last_words})", "\n".join(said))


def capture(
    argv: Argv,
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    all_of_it: bool = False,
) -> bytes:
    """Run a command to its end as its user would, in the caller's environment and `env`; what it printed.

    With `all_of_it` that is what it complained of, too. By the standard library alone, so that it works on any system.
    Files it makes are for their owner to write, and for all to read. Raises CommandError if the command is missing,
    fails, or is not done after `timeout_s` seconds.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if all_of_it else subprocess.PIPE,
            timeout=timeout_s,
            start_new_session=True,
            umask=0o022 if os.name == "posix" else -1,
            check=True,
        )
    except FileNotFoundError as missing:
        raise CommandError(f"{words[0]}: not installed") from missing
    except subprocess.TimeoutExpired as late:
        raise CommandError(f"not done after {timeout_s:g} s: {shlex.join(words)}") from late
    except subprocess.CalledProcessError as failed:
        raise _failure(words, failed.returncode, failed.stdout, failed.stderr or b"") from failed
    except OSError as failed:
        raise CommandError(f"can't be started ({failed.strerror}): {shlex.join(words)}") from failed
    return done.stdout


def spawn(
    argv: Argv,
    *,
    pass_fds: Sequence[int] = (),
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.DEVNULL,
    env: dict[str, str] | None = None,
    deaf_to: Collection[signal.Signals] = (),
) -> "subprocess.Popen[bytes]":
    """Start a child in its own session and return it; the caller waits for it, and ends it by its pid.

    The signals that it is `deaf_to` are blocked in it, unless it wants to have them.

    subprocess rather than sh: the child is started by the calling thread (bwrap's --die-with-parent
    watches that thread), without Python code between fork and exec. Raises CommandError.
    """
    words = [str(word) for word in argv]
    # A child inherits what the thread that starts it has blocked (pthread_sigmask(3)).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf_to)
    try:
        return subprocess.Popen(
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
    except OSError as failed:
        raise CommandError(f"can't be started ({failed.strerror}): {shlex.join(words)}") from failed
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
