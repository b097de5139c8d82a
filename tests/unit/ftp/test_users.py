"""users: who may send jobs."""

import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from construir_ftp.errors import ConfigError, MissingError, UsageError
from construir_ftp.ftp import users as users_module
from construir_ftp.ftp.users import Users
from tests.support.images import run
from tests.support.places import PROJECT
from tests.support.sources import Signer

PASSWORD = "correct horse"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path / "users.toml")


def test_missing_file_means_nobody(users: Users) -> None:
    assert users.names() == []
    assert not users.check("alice", PASSWORD)
    assert not users.path.exists()


@pytest.mark.long
def test_only_the_right_password_of_the_right_name_is_right(users: Users) -> None:
    users.add("bob", "battery staple")
    users.add("alice", PASSWORD)
    assert users.names() == ["alice", "bob"]
    assert users.check("alice", PASSWORD)
    for name, password in [
        ("alice", "battery staple"),
        ("alice", ""),
        ("alice", PASSWORD + " "),
        ("Alice", PASSWORD),
        ("", PASSWORD),
        ("carol", PASSWORD),
        ("al\0ice", PASSWORD),
        ("alice", "\0\udcff"),
    ]:
        assert not users.check(name, password), (name, password)


def test_password_is_not_in_the_file_and_the_file_is_for_its_owner_only(users: Users) -> None:
    users.add("alice", PASSWORD)
    assert PASSWORD.encode() not in users.path.read_bytes()
    assert users.path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in users.path.parent.iterdir()] == ["users.toml"]


def test_new_password_replaces_the_old_one(users: Users) -> None:
    users.add("alice", PASSWORD)
    users.set_password("alice", "battery staple")
    assert users.check("alice", "battery staple")
    assert not users.check("alice", PASSWORD)


def test_removed_contributor_is_gone_and_the_others_stay(users: Users) -> None:
    users.add("alice", PASSWORD)
    users.add("bob", PASSWORD)
    users.remove("alice")
    assert users.names() == ["bob"]
    assert not users.check("alice", PASSWORD)
    assert users.check("bob", PASSWORD)


def test_mail_address_is_kept_by_every_change_but_its_own(users: Users) -> None:
    users.add("alice", PASSWORD, "alice@example.org")
    users.add("bob", PASSWORD)
    users.set_password("alice", "battery staple")
    assert [users.mail(name) for name in ("alice", "bob", "carol")] == ["alice@example.org", "", ""]
    users.set_mail("bob", "b.o-b+jobs@[host]".replace("[host]", "mail.example.org"))
    users.set_mail("alice", "")
    assert [users.mail(name) for name in ("alice", "bob")] == ["", "b.o-b+jobs@mail.example.org"]
    assert users.check("alice", "battery staple")


@pytest.mark.long
@pytest.mark.parametrize(
    "mail",
    ["alice", "@example.org", "a@", "-f@example.org", "a b@example.org", "a@b\r\nBcc: c@d", 'a"@b', "a@b,c@d", "ä@b"],
)
def test_what_is_no_mail_address_is_refused(users: Users, mail: str) -> None:
    with pytest.raises(UsageError) as refused:
        users.add("alice", PASSWORD, mail)
    assert str(refused.value).isprintable()
    users.add("alice", PASSWORD)
    with pytest.raises(UsageError):
        users.set_mail("alice", mail)
    assert users.mail("alice") == ""


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    signer = Signer(tmp_path, "alice")
    yield signer
    signer.close()


@pytest.mark.parametrize("armored", [False, True])
def test_keyring_is_kept_beside_the_users_file_and_readable_by_gpgv(
    users: Users, signer: Signer, tmp_path: Path, armored: bool
) -> None:
    users.add("alice", PASSWORD, "alice@example.org")
    assert users.keyring("alice") is None
    users.set_keyring("alice", signer.public("--armor") if armored else signer.public())
    users.set_password("alice", "battery staple")
    keyring = users.keyring("alice")
    assert keyring == users.path.parent / "keyrings/alice.gpg"
    (tmp_path / "words").write_text("words\n")
    signer.sign_list(tmp_path / "words")
    run("gpgv", "--keyring", keyring, tmp_path / "words")
    assert users.mail("alice") == "alice@example.org"
    users.set_keyring("alice", b"")
    assert users.keyring("alice") is None


@pytest.mark.parametrize(
    "keys", [b"no keys", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAA\n-----END", b"\x99" * 2**21]
)
def test_what_is_no_keyring_is_refused_and_changes_nothing(users: Users, keys: bytes) -> None:
    users.add("alice", PASSWORD)
    with pytest.raises(UsageError, match="keyring"):
        users.set_keyring("alice", keys)
    assert users.keyring("alice") is None
    with pytest.raises(MissingError):
        users.set_keyring("bob", b"")


def test_keyring_elsewhere_is_none_that_a_users_file_can_name(users: Users) -> None:
    users.add("alice", PASSWORD)
    users.path.write_text(users.path.read_text() + 'keyring = "../../etc/keys.gpg"\n')
    with pytest.raises(ConfigError, match=r"'../../etc/keys.gpg' is no keyring"):
        Users(users.path).names()


def test_change_by_another_process_counts_at_once(users: Users) -> None:
    users.add("alice", PASSWORD)
    assert users.check("alice", PASSWORD)
    Users(users.path).set_password("alice", "battery staple")
    assert not users.check("alice", PASSWORD)
    assert users.check("alice", "battery staple")
    users.path.unlink()
    assert not users.check("alice", "battery staple")


def test_hashes_that_a_killed_writer_left_go_with_the_next_one(users: Users) -> None:
    left = users.path.with_name(f".{users.path.name}.0123abcd")
    left.touch()
    os.utime(left, (0, 0))
    users.add("alice", PASSWORD)
    assert not left.exists()


def test_mode_and_owner_of_the_file_are_kept(users: Users) -> None:
    users.add("alice", PASSWORD)
    users.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(users.path, 12345, 23456)
    before = users.path.stat()
    users.add("bob", PASSWORD)
    after = users.path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


ADD = """
import sys
from pathlib import Path
from construir_ftp.ftp.users import Users
Users(Path(sys.argv[1])).add(sys.argv[2], sys.argv[3])
"""


@pytest.mark.long
def test_two_who_add_at_once_lose_nothing(users: Users) -> None:
    names = [f"user{number}" for number in range(8)]
    children = [subprocess.Popen([sys.executable, "-c", ADD, users.path, name, PASSWORD]) for name in names]
    assert [child.wait(60) for child in children] == [0] * len(names)
    assert users.names() == names


@pytest.mark.long
def test_checks_in_several_threads_see_a_changing_file_whole(users: Users) -> None:
    users.add("alice", PASSWORD)
    answers: list[bool] = []

    def check() -> None:
        answers.extend(users.check("alice", PASSWORD) for _ in range(3))

    threads = [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(4):
        Users(users.path).add(f"user{number}", PASSWORD)
    for thread in threads:
        thread.join()
    assert answers == [True] * 9


def test_unknown_name_costs_as_much_as_a_wrong_password() -> None:
    nobody = argon2.extract_parameters(users_module._NOBODY)
    fresh = argon2.extract_parameters(users_module._hash(PASSWORD))
    assert nobody == fresh
    assert fresh.memory_cost >= 19 * 1024, "RFC 9106 and OWASP agree on no less"


@pytest.mark.parametrize(
    "name", ["", "anonymous", "ftp", "Alice", "1st", "-x", "a" * 33, "a b", "a.b", "a/b", "ä", "a\n", "a\0", "a]"]
)
def test_unfit_names_are_refused_in_one_printable_line(users: Users, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        users.add(name, PASSWORD)
    assert str(refused.value).isprintable()
    assert not users.path.exists()


@pytest.mark.long
@pytest.mark.parametrize("password", ["", "seven77", "x" * 257, "tab\tinside", "line\r\nQUIT", "nul\0nul\0nul"])
def test_unfit_passwords_are_refused(users: Users, password: str) -> None:
    with pytest.raises(UsageError, match="a password has at"):
        users.add("alice", password)
    users.add("alice", PASSWORD)
    with pytest.raises(UsageError, match="a password has at"):
        users.set_password("alice", password)
    assert users.check("alice", PASSWORD)


def test_what_is_asked_of_the_wrong_name_says_what_to_do(users: Users) -> None:
    users.add("alice", PASSWORD)
    with pytest.raises(UsageError, match="construir user password alice"):
        users.add("alice", PASSWORD)
    with pytest.raises(MissingError, match=r"'bob'.*construir user list"):
        users.set_password("bob", PASSWORD)
    with pytest.raises(MissingError, match=r"'bob'.*construir user list"):
        users.set_mail("bob", "bob@example.org")
    with pytest.raises(MissingError, match=r"'bob'.*construir user list"):
        users.remove("bob")
    assert users.names() == ["alice"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[contributors.alice", "etc/users.example"),
        ("[contributors.alice]\n", "password"),
        ('[contributors.alice]\npassword = "secret"\n', "construir user password alice"),
        ("[contributors.alice]\npassword = 3\n", "etc/users.example"),
        ('[contributors.alice]\nshell = "/bin/sh"\n', "shell"),
        ('[contributors.anonymous]\npassword = "x"\n', "anonymous"),
        ('[contributors."\\u001b[1m"]\npassword = "x"\n', "name"),
        ("[people]\n", "people"),
        ("\udcff", "etc/users.example"),
    ],
)
def test_damaged_file_is_named_with_what_to_do(users: Users, text: str, says: str) -> None:
    users.path.write_bytes(text.encode(errors="surrogateescape"))
    for ask in (
        users.names,
        lambda: users.check("alice", PASSWORD),
        lambda: users.add("carol", PASSWORD),
        lambda: users.remove("alice"),
    ):
        with pytest.raises(ConfigError) as refused:
            ask()
        assert str(users.path) in str(refused.value)
        assert says in str(refused.value)
        assert str(refused.value).isprintable()
    assert users.path.read_bytes() == text.encode(errors="surrogateescape")


@pytest.mark.parametrize(
    "damaged", ["$argon2id$v=19$m=65536,t=3,p=4$xx$yy", "$argon2id$v=\u06619$m=8,t=1,p=1$c29tZXNhbHQ$MDAwMDAwMDAwMDA"]
)
def test_damaged_hash_is_an_error_not_a_wrong_password(users: Users, damaged: str) -> None:
    users.path.write_text(f'[contributors.alice]\npassword = "{damaged}"\n')
    with pytest.raises(ConfigError, match="alice"):
        users.check("alice", PASSWORD)


def test_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    users = Users(in_the_way / "users.toml")
    with pytest.raises(ConfigError, match=str(users.path)):
        users.add("alice", PASSWORD)


def test_example_says_the_truth(users: Users) -> None:
    example = (PROJECT / "etc" / "users.example").read_text()
    users.path.write_text(example)
    assert users.names() == [], "copied as it is, it must let nobody in"
    users.path.write_text(
        "\n".join(line.removeprefix("# ") for line in example.splitlines() if "alice" in line or "$" in line)
    )
    assert users.check("alice", "correct horse battery")
    assert users.mail("alice") == "alice@example.org"


@given(st.text(max_size=40))
def test_any_name_is_either_refused_or_fit_for_toml(name: str) -> None:
    try:
        users_module._check_name(name)
    except UsageError:
        return
    contributor = users_module._Contributor("$argon2id$x", "a@example.org")
    assert tomllib.loads(users_module._text({name: contributor})) == {
        "contributors": {name: {"password": "$argon2id$x", "mail": "a@example.org"}}
    }
