"""certificate: files that can't be used are told apart in plain words. And what `construir check` makes of them."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from construir_ftp import config
from construir_ftp.appliance import check, exposure
from construir_ftp.appliance.finding import Finding
from construir_ftp.config import Config, FtpSection, TlsSection
from construir_ftp.errors import CommandError, ConfigError
from construir_ftp.ftp import certificate
from construir_ftp.ftp.certificate import Certificate
from tests.support import images
from tests.support.tlsclient import make_certificate


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


def complaint(certificate_file: Path, key: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        certificate.load(certificate_file, key)
    message = str(caught.value)
    assert message.isprintable()
    assert str(certificate_file) in message or str(key) in message
    return message


# -- what can be used ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_certificate_and_key_may_be_one_file(tmp_path: Path, kind: str) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in make_certificate(tmp_path, kind=kind)))
    assert isinstance(certificate.load(both, both), ssl.SSLContext)
    assert TlsSection(certificate=str(both)).files() == (both, both)


def test_tls_is_1_2_at_least_and_never_negotiated_anew(files: tuple[Path, Path]) -> None:
    context = certificate.load(*files)
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_key_of_another_certificate_is_named(files: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    _, key = make_certificate(tmp_path, "other", kind=kind)
    assert complaint(files[0], key).startswith(f"{key}: not the key of {files[0]}; ")


def test_key_with_a_password_is_refused_and_nobody_is_asked_for_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    images.run("openssl", "pkey", "-in", files[1], "-aes256", "-passout", "pass:secret", "-out", locked)
    assert "without a password" in complaint(files[0], locked)


def test_garbage_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    for content in (b"", b"garbage\n", files[1].read_bytes(), bytes(1000)):
        (tmp_path / "garbage").write_bytes(content)
        assert "not a certificate and its key" in complaint(tmp_path / "garbage", files[1])
    assert "not a certificate and its key" in complaint(files[0], files[0])


def test_key_that_is_missing_is_asked_for_by_its_name(files: tuple[Path, Path]) -> None:
    for key in (None, files[0]):
        pair = TlsSection(certificate=str(files[0]), key=str(key or "")).files()
        assert pair is not None
        assert complaint(*pair).endswith("no private key is in it; name the file that has it by tls.key")


def test_missing_files_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for pair in ((missing, files[1]), (files[0], missing)):
        key_name = "certificate" if pair[0] == missing else "key"
        words = f"{missing}: No such file or directory; name the file that has it by tls.{key_name}"
        assert complaint(*pair) == words
    assert complaint(tmp_path, files[1]).startswith(f"{tmp_path}: Is a directory; ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_key_is_named(files: tuple[Path, Path]) -> None:
    files[1].chmod(0)
    assert complaint(*files).startswith(f"{files[1]}: Permission denied; ")


# -- what changes ----------------------------------------------------------------------------------------------------


def test_files_that_are_the_same_are_not_read_again(files: tuple[Path, Path]) -> None:
    used = Certificate(*files)
    assert used.context() is used.context()


def test_new_link_to_other_files_is_a_change(tmp_path: Path) -> None:
    live = (tmp_path / "live.pem", tmp_path / "live.key")
    for link, target in zip(live, make_certificate(tmp_path, "first"), strict=True):
        link.symlink_to(target)
    used = Certificate(*live)
    before = used.context()
    for link, target in zip(live, make_certificate(tmp_path, "second"), strict=True):
        link.unlink()
        link.symlink_to(target)
    assert used.context() is not before


# -- construir check -------------------------------------------------------------------------------------------------


def findings(subject: str, **sections: object) -> list[Finding]:
    settings = Config(**sections)  # type: ignore[arg-type]
    look = {"certificate": exposure.certificate_ends, "passwords": exposure.passwords}[subject]
    return list(look(settings))


def section(files: tuple[Path, Path], **more: bool) -> TlsSection:
    return TlsSection(certificate=str(files[0]), key=str(files[1]), **more)


def test_expiry_is_read_from_the_certificate(tmp_path: Path) -> None:
    expected = datetime.now(UTC) + timedelta(days=33)
    assert abs(certificate.expires(make_certificate(tmp_path, days=33)[0]) - expected) < timedelta(minutes=5)
    (tmp_path / "garbage").write_text("garbage\n")
    with pytest.raises(CommandError):
        certificate.expires(tmp_path / "garbage")


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (22, "ok"), (20, "warning"), (1, "warning"), (-1, "problem")])
def test_check_warns_three_weeks_before_the_certificate_expires(tmp_path: Path, days: int, state: str) -> None:
    files = make_certificate(tmp_path)
    # Signed anew: openssl req makes none that has expired already.
    images.run("openssl", "x509", "-in", files[0], "-signkey", files[1], "-days", str(days), "-out", files[0])
    (found,) = findings("certificate", tls=section(files))
    assert found.state == state, found
    assert str(files[0]) in found.text
    assert bool(found.remedy) == (state != "ok")


def test_check_finds_a_certificate_that_can_not_be_used(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_certificate(tmp_path, "other")[1]
    for pair, word in (((files[0], other), "not the key"), ((tmp_path / "missing", files[1]), "No such file")):
        found = next(one for one in check._demands(Config(tls=section(pair))) if one.subject == "certificate and key")
        assert found.state == "problem"
        assert word in found.text
        assert found.remedy
    assert findings("certificate") == []


@pytest.mark.parametrize(
    ("address", "masquerade_address", "is_public"),
    [
        ("127.0.0.1", "", False),
        ("::1", "", False),
        ("localhost", "", False),
        ("10.1.2.3", "", False),
        ("192.168.1.1", "", False),
        ("fd00::1", "", False),
        ("0.0.0.0", "", True),
        ("::", "", True),
        ("9.9.9.9", "", True),
        ("2620:fe::9", "", True),
        ("10.1.2.3", "9.9.9.9", True),
    ],
)
def test_check_warns_of_passwords_in_clear_on_a_public_address(
    files: tuple[Path, Path], address: str, masquerade_address: str, is_public: bool
) -> None:
    ftp = FtpSection(address=address, masquerade_address=masquerade_address)
    for tls, remedies in (
        (TlsSection(), ("tls.require_tls", "tls.certificate", "tls.key")),
        (section(files), ("tls.require_tls",)),
    ):
        (found,) = findings("passwords", ftp=ftp, tls=tls)
        assert found.state == ("warning" if is_public else "ok"), found
        assert all(remedy in found.remedy for remedy in remedies) or not is_public
    (found,) = findings("passwords", ftp=ftp, tls=section(files, require_tls=True))
    assert found.state == "ok"


# -- [tls] -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ['key = "/k"', "require_tls = true", "implicit = true"])
def test_key_that_needs_a_certificate_is_an_error_that_names_it(line: str) -> None:
    with pytest.raises(ConfigError, match=rf"my\.toml: tls\.{line.split()[0]}: expected tls\.certificate beside it"):
        config.parse(f"[tls]\n{line}\n", "my.toml")
