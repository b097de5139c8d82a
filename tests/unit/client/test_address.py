"""client.address and client.credentials: where a server is, and who logs in; no password on any command line."""

import os
from pathlib import Path

import pytest

from construir_ftp.client import address
from construir_ftp.client.address import Address, Ask, Credentials
from construir_ftp.errors import ConfigError, LoginError


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".netrc"
    path.touch(mode=0o600)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ftp://alice@build.example.org:2121", Address("ftp", "build.example.org", 2121, "alice")),
        ("build.example.org", Address("ftp", "build.example.org", 21)),
        ("alice@localhost:2121", Address("ftp", "localhost", 2121, "alice")),
        ("ftps://build.example.org/queue/", Address("ftps", "build.example.org", 990)),
        ("ftpes://[::1]:21", Address("ftpes", "::1", 21)),
        ("[::1]:2121", Address("ftp", "::1", 2121)),
    ],
)
def test_an_address_is_read_as_people_write_it(text: str, expected: Address) -> None:
    assert address.parse(text) == expected
    assert address.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "ftp://", "http://x", "ftp://x:port", "ftp://x:99999", "ftp://x/done", "ftp://[::1", "a b", "x\x1b[2J"]
)
def test_what_is_no_address_is_bad_configuration_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        address.parse(text)
    assert str(error.value).isprintable()


def test_a_password_in_an_address_is_refused_without_being_repeated() -> None:
    with pytest.raises(ConfigError, match="netrc") as error:
        address.parse("ftp://alice:battery-staple@build.example.org")
    assert "battery" not in str(error.value)


def asking(*answers: str) -> Ask:
    left = list(answers)
    return lambda _question, _is_secret: left.pop(0)


def test_the_password_comes_from_netrc(netrc: Path) -> None:
    netrc.write_text("machine here login alice password one\nmachine there login bob password two\n")
    assert address.login_for(address.parse("there"), None) == Credentials("bob", "two")
    assert address.login_for(address.parse("alice@here:2121"), None) == Credentials("alice", "one")
    assert "one" not in repr(address.login_for(address.parse("here"), None))


def test_each_of_several_who_have_an_entry_for_a_host_has_a_password(netrc: Path) -> None:
    netrc.write_text(
        '# machine here login alice password old\nmachine here login alice password "one of # \\" mine"\n'
        "machine here\n\tlogin password\n\tpassword login\ndefault login carol password three\n"
        "machine here login bob account x password two\n"
    )
    for name, password in (("alice", 'one of # " mine'), ("bob", "two"), ("password", "login")):
        assert address.login_for(address.parse(f"{name}@here"), None) == Credentials(name, password)
    with pytest.raises(LoginError, match="machine here login carol password PASSWORD"):
        address.login_for(address.parse("carol@here"), None)


def test_what_netrc_does_not_have_is_asked_for_or_said(netrc: Path) -> None:
    netrc.write_text("machine here login alice password one\n")
    assert address.login_for(address.parse("carol@here"), asking("three")) == Credentials("carol", "three")
    assert address.login_for(address.parse("elsewhere"), asking("dan", "four")) == Credentials("dan", "four")
    with pytest.raises(LoginError, match="machine elsewhere login NAME password PASSWORD"):
        address.login_for(address.parse("elsewhere"), None)
    netrc.unlink()
    with pytest.raises(LoginError, match="machine here login carol password PASSWORD"):
        address.login_for(address.parse("carol@here"), None)


def test_a_netrc_that_cant_be_used_is_named(netrc: Path) -> None:
    netrc.write_text("machin here\n")
    with pytest.raises(ConfigError, match="netrc"):
        address.login_for(address.parse("here"), None)
    netrc.write_text("machine here login alice password one\n")
    netrc.chmod(0o644)
    with pytest.raises(ConfigError, match=f"others may read it, .*; run: chmod 600 {netrc}$"):
        address.login_for(address.parse("here"), None)


@pytest.mark.root("only root can give a file to another user")
def test_a_netrc_of_another_user_is_not_used(netrc: Path) -> None:
    netrc.write_text("machine here login alice password one\n")
    os.chown(netrc, 65534, 65534)
    with pytest.raises(ConfigError, match="it is another user's"):
        address.login_for(address.parse("here"), None)


@pytest.mark.parametrize("text", ["machine here login alice password correct horse\n", "machin correct horse\n"])
def test_what_makes_no_sense_in_netrc_is_not_repeated(netrc: Path, text: str) -> None:
    netrc.write_text(text)
    with pytest.raises(ConfigError, match="in quotes: password") as error:
        address.login_for(address.parse("here"), None)
    assert "horse" not in str(error.value) and "correct" not in str(error.value)


def test_no_login_can_hold_a_command(netrc: Path) -> None:
    with pytest.raises(LoginError):
        address.login_for(address.parse("here"), asking("alice", "x\r\nDELE /queue/y"))
    with pytest.raises(LoginError):
        address.login_for(address.parse("a%0d%0aDELE%20x@here"), asking("x"))
