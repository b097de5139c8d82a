"""What clients make of a password in ~/.netrc: what docs/clients.md says of blanks, quotes and backslashes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.client.address import needs_quotes
from tests.support.ftpclient import House, serving, users_text

_PLAIN = ("battery-staple", "it'sfine:1", "Ünicode-123")
_ODD = ("correct horse battery", 'say"hello', '"sayhello', "back\\slash", "#sharp123")
_CLIENTS = ("curl", "lftp", "tnftp", "construir")
# What is sent is no job: whoever is told so has been let in.
_LET_IN = "not a file system image"

Send = Callable[..., str]


def quoted(password: str) -> str:
    """As docs/clients.md has it."""
    return '"' + password.replace("\\", "\\\\").replace('"', '\\"') + '"'


def command(client: str, port: int) -> list[str]:
    """How it sends a file, and shows the reply."""
    lftp = "set net:max-retries 1; debug 4; put -O queue j.img; exit"
    commands = {
        "curl": ["curl", "-snv", "-T", "j.img", f"ftp://localhost:{port}/queue/"],
        "lftp": ["lftp", "-e", lftp, "-p", str(port), "alice@localhost"],
        "lftp --env-password": ["lftp", "--env-password", "-e", lftp, "-p", str(port), "-u", "alice", "localhost"],
        "tnftp": ["tnftp", "-v", "-u", f"ftp://alice@localhost:{port}/queue/", "j.img"],
        "construir": [sys.executable, "-m", "construir_ftp", "submit", "j.img", f"ftp://alice@localhost:{port}"],
    }
    return commands[client]


def sent(house: House, home: Path, client: str, entry: str, **env: str) -> str:
    """What a client says that sends something, with that for a password in ~/.netrc."""
    (home / ".netrc").write_text(f"machine localhost login alice password {entry}\n" if entry else "")
    (home / ".netrc").chmod(0o600)
    (home / "j.img").write_bytes(b"no job")
    done = subprocess.run(
        command(client, house.server.address[1]),
        env=process.environment(HOME=str(home), PATH=os.environ["PATH"], LC_ALL="C.UTF-8", **env),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("password", [*_PLAIN, *_ODD])
def test_what_is_said_of_quotes_in_netrc_is_so(tmp_path: Path, password: str) -> None:
    assert needs_quotes(password) == (password in _ODD)
    with serving(tmp_path / "house") as house:
        house.users.path.write_text(users_text("alice", password=password))
        for client in _CLIENTS:
            understands = client != "lftp"
            if password in _PLAIN:
                assert _LET_IN in sent(house, tmp_path, client, password), client
            elif understands:
                assert _LET_IN in sent(house, tmp_path, client, quoted(password)), client
        if password in _ODD:
            assert " 530 " in sent(house, tmp_path, "lftp", quoted(password))
            assert _LET_IN in sent(house, tmp_path, "lftp --env-password", quoted(password), LFTP_PASSWORD=password)


@pytest.mark.parametrize("client", ["curl", "lftp", "tnftp"])
def test_a_password_with_blanks_that_is_not_in_quotes_is_wrong(tmp_path: Path, client: str) -> None:
    with serving(tmp_path / "house") as house:
        house.users.path.write_text(users_text("alice", password=_ODD[0]))
        assert _LET_IN not in sent(house, tmp_path, client, _ODD[0])


def test_construir_says_so_without_a_word_of_the_password(tmp_path: Path) -> None:
    with serving(tmp_path / "house") as house:
        said = sent(house, tmp_path, "construir", _ODD[0])
    assert said.startswith(f"construir: {tmp_path}/.netrc: it makes no sense near line 1; a password with blanks, ")
    assert not [word for word in _ODD[0].split() if word in said]
