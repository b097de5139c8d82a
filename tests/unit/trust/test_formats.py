"""What an appliance signs is what other people's programs accept: ssh-keygen, and securesystemslib for the envelope."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer._key import SSlibKey

from construir_ftp.config import TrustSection
from construir_ftp.errors import ConfigError, DamagedError
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust import dsse, ed25519, key_place, keys, sshsig
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.seal import Seal
from tests.support import signed


def ssh_verify(signers: Path, place: Path) -> "subprocess.CompletedProcess[str]":
    """As README has it."""
    argv = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "construir", "-n", "construir"]
    with (place / "SHA256SUMS").open("rb") as listed:
        return subprocess.run([*argv, "-s", place / "SHA256SUMS.sig"], stdin=listed, capture_output=True, text=True)


def test_ssh_keygen_accepts_the_signature_and_no_other_bytes(spool: Spool, done: Path) -> None:
    signers = key_place.directory(spool.path) / "allowed_signers"
    accepted = ssh_verify(signers, done)
    assert accepted.stdout.startswith('Good "construir" signature for construir with ED25519 key SHA256:')
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=done, check=True)

    with (done / "SHA256SUMS").open("ab") as file:
        file.write(b"0")
    assert ssh_verify(signers, done).returncode == 255


def test_the_signature_is_byte_for_byte_the_one_that_ssh_keygen_makes(
    spool: Spool, seal: Seal, done: Path, tmp_path: Path
) -> None:
    private = serialization.load_pem_private_key(seal.key.path.read_bytes(), None)
    theirs = tmp_path / "key"
    theirs.touch(mode=0o600)
    theirs.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    (tmp_path / "SHA256SUMS").write_bytes((done / "SHA256SUMS").read_bytes())
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", "construir", "-f", str(theirs), str(tmp_path / "SHA256SUMS")]
    subprocess.run(argv, check=True, capture_output=True)
    assert (tmp_path / "SHA256SUMS.sig").read_bytes() == (done / "SHA256SUMS.sig").read_bytes()
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", key_place.directory(spool.path) / "construir.pub"], capture_output=True, text=True
    )
    assert shown.stdout.split()[1] == seal.key.public.fingerprint


def test_securesystemslib_accepts_the_envelope_and_no_other_payload(seal: Seal, done: Path) -> None:
    text = (done / "provenance.intoto.jsonl").read_text()
    public = Ed25519PublicKey.from_public_bytes(seal.key.public.raw)
    key = SSlibKey.from_crypto(public, keyid=seal.key.public.fingerprint)
    envelope = Envelope.from_dict(json.loads(text))
    assert list(envelope.verify([key], 1)) == [seal.key.public.fingerprint]
    statement = json.loads(envelope.payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [one["name"] for one in statement["subject"]] == [
        "greet.img.zst",
        "artifacts/greet.deb",
        "artifacts/greet.txt",
    ]

    told = json.loads(text)
    told["payload"] = base64.b64encode(envelope.payload.replace(b"success", b"failure")).decode()
    with pytest.raises(VerificationError):
        Envelope.from_dict(told).verify([key], 1)


def test_both_ways_to_prove_a_signature_say_the_same(seal: Seal) -> None:
    message = b"some bytes"
    good = seal.key.sign(message)
    for prove in (ed25519.verify, ed25519.by_openssl):
        assert prove(seal.key.public, message, good)
        assert not prove(seal.key.public, message + b"!", good)
        assert not prove(seal.key.public, message, bytes([good[0] ^ 1]) + good[1:])
        assert not prove(PublicKey(bytes(32)), message, good)
    assert not ed25519.verify(seal.key.public, message, good[:-1])


def test_a_signature_in_another_spelling_is_none(done: Path) -> None:
    content = (done / "SHA256SUMS.sig").read_bytes()
    sshsig.parse(content)
    for other in (content + b"\n", content.replace(b"\n", b"\r\n"), content[:-30], b"", b"-----BEGIN"):
        with pytest.raises(DamagedError):
            sshsig.parse(other)


@pytest.mark.parametrize("nonsense", [b"", b"{}", b"[]", b"\xff", b'{"payload":"!","payloadType":"x","signatures":[]}'])
def test_an_envelope_that_is_none_is_told(nonsense: bytes) -> None:
    with pytest.raises(DamagedError):
        dsse.parse(nonsense, "it")


def test_a_key_has_one_owner_and_old_ones_stay_known(spool: Spool, seal: Seal) -> None:
    place = key_place.directory(spool.path)
    assert (place / "construir.key").stat().st_mode & 0o777 == 0o600
    assert signed.seal(spool.path).key == seal.key, "a second start finds the same"
    assert key_place.known(spool.path) == [seal.key.public]

    (place / "construir.key").unlink()
    with pytest.raises(ConfigError, match="is missing, the key that results are signed with: put it back"):
        signed.seal(spool.path)
    assert not (place / "construir.key").exists()
    (place / "construir.pub").unlink()
    following = signed.seal(spool.path)
    assert key_place.known(spool.path) == [following.key.public, seal.key.public], "the newest first"
    assert keys.read((place / "construir.pub").read_text(), "it") == [following.key.public]

    (place / "construir.key").chmod(0o640)
    with pytest.raises(ConfigError, match="others can read this key"):
        signed.seal(spool.path)


def test_lines_of_signers_that_nobody_can_read_stop_nothing(spool: Spool, seal: Seal) -> None:
    signers = key_place.directory(spool.path) / "allowed_signers"
    signers.write_bytes(b"# J\xf6rg's\n" + signers.read_bytes())
    assert signed.seal(spool.path).key == seal.key
    assert key_place.known(spool.path) == [seal.key.public]


def test_a_key_in_the_current_directory_is_not_one_that_systemd_hands_over(
    spool: Spool, seal: Seal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "construir.key").write_bytes(seal.key.path.read_bytes())
    (tmp_path / "construir.key").chmod(0o644)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")
    assert signed.seal(spool.path).key.path == seal.key.path
    with pytest.raises(ConfigError, match="others can read this key"):
        Seal.of(spool.path, TrustSection(key=str(tmp_path / "construir.key")))


def test_a_key_of_another_kind_is_refused(spool: Spool, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.touch(mode=0o600)
    argv = ["openssl", "genpkey", "-algorithm", "ed448"]
    other.write_bytes(subprocess.run(argv, check=True, capture_output=True).stdout)
    with pytest.raises(ConfigError, match="not an ed25519 key"):
        Seal.of(spool.path, TrustSection(key=str(other)))


def test_the_key_that_systemd_hands_over_is_taken(
    spool: Spool, seal: Seal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "construir.key").write_bytes(seal.key.path.read_bytes())
    seal.key.path.unlink()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert signed.seal(spool.path).key.path == tmp_path / "construir.key"
    assert not (key_place.directory(spool.path) / "construir.key").exists()


def test_keys_are_read_from_what_ssh_writes_and_only_those_for_results(seal: Seal, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    other = (tmp_path / "other.pub").read_text()
    (theirs,) = keys.read(other, "it")
    ours = seal.key.public
    text = f"# a comment\n\n{ours.signer_line('host')}\nann@example.org {other}"
    assert keys.read(text, "it") == [ours, theirs]
    for line in (
        f'ann namespaces="git,file" {other}',
        f"ann cert-authority {other}",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
    ):
        with pytest.raises(ConfigError, match="no public key is in it"):
            keys.read(line, "it")


@pytest.mark.parametrize(
    ("before", "is_trusted"),
    [
        ("construir ", True),
        ("\tconstruir ", True),
        ('construir namespaces="construir,git" ', True),
        ('"construir,ann b" valid-after="20200101",namespaces="construir" ', True),
        ('construir valid-before="20990101Z" ', True),
        ('construir valid-before="20200101" ', False),
        ('construir valid-after="209901010000" ', False),
        ('construir valid-after="2020" ', False),
        ('construir NAMESPACES="git" ', False),
        ("construir Cert-Authority ", False),
        ("construir no-such-option ", False),
        ('construir namespaces="construir ', False),
        ("  # construir ", False),
        ("@revoked * ", False),
        ("construir ssh-rsa AAAA ", False),
    ],
)
def test_a_line_of_signers_is_trusted_if_ssh_keygen_trusts_it(
    seal: Seal, done: Path, tmp_path: Path, before: str, is_trusted: bool
) -> None:
    line = f"{before}{seal.key.public.line()}\n"
    (tmp_path / "signers").write_text(line)
    assert (ssh_verify(tmp_path / "signers", done).returncode == 0) == is_trusted
    try:
        assert (keys.read(line, "it") == [seal.key.public]) == is_trusted
    except ConfigError as error:
        assert not is_trusted, error
