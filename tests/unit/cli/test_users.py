"""`construir user`: what is asked of a person, and what a password is warned of."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp.ftp.users import Users
from tests.support.appliance import construir

_WARNING = "construir: with blanks, quotes, backslashes or # in it, a password is to be in quotes in ~/.netrc, "


def asked(*words: str, answers: list[str]) -> tuple[int, str]:
    """Exit status, and all that is shown on a terminal, where each question gets the next answer."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "construir_ftp", *words]
    child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown, left = b"", list(answers)
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        shown += piece
        if left and shown.endswith(b": "):
            os.write(ours, f"{left.pop(0)}\n".encode())
    os.close(ours)
    return child.wait(60), shown.decode().replace("\r\n", "\n")


def test_an_unfit_password_is_asked_for_again_before_it_is_repeated(tmp_path: Path) -> None:
    answers = ["short", "battery staple", "battery stable", "battery staple", "battery staple"]
    status, shown = asked("user", "add", "alice", f"--spool={tmp_path}", answers=answers)
    assert status == 0, shown
    questions = [line.partition(": ")[0] for line in shown.splitlines() if line.endswith(": ")]
    assert questions == ["Password", "Password", "Repeat for confirmation", "Password", "Repeat for confirmation"]
    assert "construir: a password has at least 8 characters, this one has 5; choose another\n" in shown
    assert "construir: these are two different passwords; type one twice\n" in shown
    assert not [answer for answer in answers if answer in shown], "none is shown"
    assert Users(tmp_path / "users.toml").check("alice", "battery staple")


@pytest.mark.long
@pytest.mark.parametrize("words", [("user", "add", "alice"), ("user", "password", "alice")])
def test_a_password_that_netrc_has_in_quotes_is_taken_with_a_warning(tmp_path: Path, words: tuple[str, ...]) -> None:
    stdin, spool = "--password-stdin", f"--spool={tmp_path}"
    if words[1] == "password":
        construir("user", "add", "alice", stdin, spool, input="battery-staple\n", check=True)
    for password, is_odd in (("battery staple", True), ('battery"staple', True), ("battery-staple", False)):
        said = construir(*words, stdin, spool, input=f"{password}\n")
        assert (said.returncode, said.stdout) == (0, "")
        assert said.stderr.startswith(_WARNING) if is_odd else not said.stderr
        assert said.stderr.count("\n") == int(is_odd)
        assert Users(tmp_path / "users.toml").check("alice", password)
        if words[1] == "add":
            construir("user", "remove", "alice", spool, check=True)
