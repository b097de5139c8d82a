"""Promises of `construir submit`: its server is named once, whichever way."""

from pathlib import Path

import pytest

from tests.support import images
from tests.support.appliance import construir

# Nobody listens on a port that no program may choose: what is tried is told, and nothing else happens.
NOWHERE = "ftp://alice@127.0.0.1:1"


@pytest.mark.parametrize("words", [(NOWHERE,), ("--server", NOWHERE), (NOWHERE, "--server", NOWHERE)])
def test_the_server_is_the_last_word_or_an_option(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret-word\n")
    (tmp_path / ".netrc").chmod(0o600)
    job = images.job_directory(tmp_path / "job")
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    said = construir("submit", job, *words, "--patience", "0s", env=env)
    assert said.returncode == 69
    assert NOWHERE.removeprefix("ftp://alice@") in said.stderr


def test_two_servers_are_one_too_many(tmp_path: Path) -> None:
    said = construir("submit", tmp_path, NOWHERE, "--server", "ftp://alice@localhost:2")
    assert said.returncode == 2
    assert said.stderr == (f"construir: two servers are named, {NOWHERE} and ftp://alice@localhost:2; name one\n")


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["ftpes", "ftps"])
@pytest.mark.parametrize("command", [("jobs",), ("fetch", "a-job"), ("watch", "a-job"), ("submit", ".")])
def test_an_address_that_insists_on_tls_and_tls_never_are_refused(
    scheme: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    server = f"{scheme}://alice@127.0.0.1:1"
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    for words, variables in ((("--tls", "never"), {}), ((), {"CONSTRUIR_TLS": "never"})):
        job = images.job_directory(tmp_path / f"job-{len(words)}") if command[0] == "submit" else None
        argv = (command[0], job) if job else command
        said = construir(*argv, "--server", server, *words, env={**env, **variables})
        assert said.returncode == 2
        clear = "ftp://alice@127.0.0.1:1" if scheme == "ftpes" else "ftp://alice@127.0.0.1:PORT"
        expected = (
            f"construir: {server} insists on TLS, which --tls or CONSTRUIR_TLS says never to use;"
            f" with it: --tls auto; in clear: {clear}\n"
        )
        assert (said.stdout, said.stderr) == ("", expected)


def test_an_address_that_insists_on_tls_may_have_it_required(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    said = construir("jobs", "--server", "ftpes://127.0.0.1:1", "--tls", "required", env=env)
    assert said.returncode == 69, "nobody listens there"
