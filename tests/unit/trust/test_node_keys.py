"""A result that a node has signed is proved by the front's key alone, and by ssh-keygen alone, until it is revoked."""

import subprocess
from pathlib import Path

import pytest

from construir_ftp.config import TrustSection
from construir_ftp.errors import ConstruirError, DamagedError, UntrustedError
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust import certificate, key_place, keys, node_key, sshsig, verify
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.seal import Seal, SigningError
from tests.support import signed
from tests.unit.trust.test_verify import flipped

OTHER_ID = "20261129T120001Z-0000-other"


@pytest.fixture
def front(spool: Spool) -> Seal:
    return signed.seal(spool.path)


def node(spool: Spool, place: Path, name: str = "far") -> Seal:
    """A node whose key is in `place`."""
    return Seal.of_node(spool.path, TrustSection(key=str(place / "construir.key"), name="far.example.org"), name)


def admit(spool: Spool, front: Seal, name: str = "far") -> PublicKey:
    asked = node_key.asking(spool.path, name)
    return node_key.admit(spool.path, name, asked, front.key, front.host).key


@pytest.fixture
def far(spool: Spool, front: Seal, tmp_path: Path) -> Seal:
    """One that is admitted."""
    seal = node(spool, tmp_path / "far")
    assert admit(spool, front) == seal.key.public
    return seal


def ssh_keygen(spool: Spool, result: Path, *options: str, principal: str = "construir") -> int:
    """What OpenSSH says of a result's signature, with what anyone has from the server."""
    argv = ["ssh-keygen", "-Y", "verify", "-f", "allowed_signers", "-I", principal, "-n", "construir", *options]
    with (result / "SHA256SUMS").open("rb") as listed:
        place = key_place.directory(spool.path)
        return subprocess.run([*argv, "-s", result / "SHA256SUMS.sig"], stdin=listed, cwd=place).returncode


def test_ssh_keygen_alone_verifies_what_an_admitted_node_has_signed(spool: Spool, far: Seal) -> None:
    done = signed.result(spool, far)
    for principal in ("construir", f"construir@{signed.HOST}"):
        assert ssh_keygen(spool, done, principal=principal) == 0
    assert ssh_keygen(spool, done, principal="construir@far.example.org") != 0
    with (done / "SHA256SUMS").open("ab") as file:
        file.write(b"0")
    assert ssh_keygen(spool, done) != 0


def test_what_a_key_has_signed_that_nobody_has_certified_is_not_proved(
    spool: Spool, front: Seal, tmp_path: Path
) -> None:
    stranger = signed.seal(tmp_path / "stranger")
    made = certificate.make(stranger.key.public, "far", signed.HOST, stranger.key.public, stranger.key.sign)
    done = signed.result(spool, stranger)
    sums = (done / "SHA256SUMS").read_bytes()
    for word in (None, made):
        signature = sshsig.Signature(stranger.key.public, stranger.key.sign(sshsig.signed_bytes(sums)), word)
        (done / "SHA256SUMS.sig").write_bytes(sshsig.armored(signature))
        assert ssh_keygen(spool, done) != 0
        with pytest.raises(UntrustedError, match="which is not known here"):
            verify.check(done, [front.key.public])


def test_a_node_is_proved_by_the_key_of_its_front(spool: Spool, front: Seal, far: Seal) -> None:
    proof = verify.check(signed.result(spool, far), [front.key.public])
    assert (proof.key, proof.node) == (front.key.public, "far")
    assert proof.builder.startswith(f"construir://{signed.HOST}/")
    assert far.signs_as() == front.signs_as() == signed.HOST


def test_a_node_that_is_not_admitted_signs_as_nobody(spool: Spool, front: Seal, tmp_path: Path) -> None:
    assert node(spool, tmp_path / "far").signs_as() == ""


def test_what_the_front_itself_signs_is_proved_as_ever(spool: Spool, front: Seal, far: Seal) -> None:
    done = signed.result(spool, front)
    assert verify.check(done, [front.key.public]).node == ""
    assert ssh_keygen(spool, done) == 0
    assert b"cert" not in (done / "provenance.intoto.jsonl").read_bytes()


def test_each_byte_of_a_certificate_counts(spool: Spool, front: Seal, far: Seal) -> None:
    done = signed.result(spool, far)
    signature = done / "SHA256SUMS.sig"
    for at in range(0, signature.stat().st_size, 7):
        with flipped(signature, at), pytest.raises((DamagedError, UntrustedError)):
            verify.check(done, [front.key.public])
    blob = sshsig.parse(signature.read_bytes()).certificate
    assert blob is not None
    for at in range(0, len(blob.blob), 5):
        with pytest.raises(DamagedError):
            certificate.parse(blob.blob[:at] + bytes([blob.blob[at] ^ 1]) + blob.blob[at + 1 :])
        with pytest.raises(DamagedError):
            certificate.parse(blob.blob[:at])


def test_nothing_is_signed_by_a_node_that_is_not_admitted(spool: Spool, front: Seal, tmp_path: Path) -> None:
    seal = node(spool, tmp_path / "far")
    for use in (seal.demand_usable, lambda: seal.signature(b"")):
        with pytest.raises(SigningError, match="node far: not admitted; on the front: construir node admit far"):
            use()
    admit(spool, front)
    seal.demand_usable()
    assert node_key.why_not(spool.path, "far") == ""


def test_another_computer_of_the_same_name_is_another_node(
    spool: Spool, front: Seal, far: Seal, tmp_path: Path
) -> None:
    other = node(spool, tmp_path / "other")
    node_key.admit_by_rule(spool.path, ["*"], front.key, front.host, "far")
    with pytest.raises(SigningError, match="its key is another one"):
        other.demand_usable()
    with pytest.raises(SigningError):
        far.demand_usable()


def test_a_revoked_node_is_believed_nothing_and_not_admitted_again(
    spool: Spool, front: Seal, far: Seal, tmp_path: Path
) -> None:
    done, other = signed.result(spool, far), signed.result(spool, front, OTHER_ID)
    assert node_key.revoke(spool.path, "far") == far.key.public
    revoked = {(front.key.public, key) for key in key_place.revoked(spool.path)}
    with pytest.raises(UntrustedError, match=r"by node far, SHA256:\S+, whose key was revoked"):
        verify.check(done, [front.key.public], revoked=revoked)
    assert ssh_keygen(spool, done, "-r", "revoked_keys") != 0
    assert ssh_keygen(spool, other, "-r", "revoked_keys") == 0
    assert verify.check(other, [front.key.public], revoked=revoked).node == ""
    with pytest.raises(SigningError, match="its key was revoked"):
        far.demand_usable()
    with pytest.raises(ConstruirError, match="was revoked; remove its file"):
        admit(spool, front)
    again = node(spool, tmp_path / "new")
    node_key.admit_by_rule(spool.path, ["*"], front.key, front.host, "far")
    with pytest.raises(SigningError, match="not admitted"):
        again.demand_usable()
    admit(spool, front)
    again.demand_usable()


def test_a_rule_admits_the_nodes_that_it_names(spool: Spool, front: Seal, tmp_path: Path) -> None:
    far, near = node(spool, tmp_path / "far"), node(spool, tmp_path / "near", "near")
    for name in ("far", "near", "nobody"):
        node_key.admit_by_rule(spool.path, ["f*"], front.key, front.host, name)
    far.demand_usable()
    with pytest.raises(SigningError, match="not admitted"):
        near.demand_usable()


def test_results_of_before_the_front_had_a_new_key_are_still_verified(spool: Spool, far: Seal) -> None:
    done, place = signed.result(spool, far), key_place.directory(spool.path)
    for name in ("construir.key", "construir.pub"):
        (place / name).unlink()
    signed.seal(spool.path)
    assert len(key_place.known(spool.path)) == 2
    assert ssh_keygen(spool, done) == 0
    assert verify.check(done, key_place.known(spool.path)).node == "far"
    far.demand_usable()


def test_a_node_that_has_the_key_of_the_front_signs_as_the_front(spool: Spool, front: Seal) -> None:
    same = Seal.of_node(spool.path, TrustSection(key=str(_copied(front, spool.path.parent))), "far")
    assert verify.check(signed.result(spool, same), [front.key.public]).node == ""


def _copied(front: Seal, place: Path) -> Path:
    path = place / "copied.key"
    path.touch(mode=0o600)
    path.write_bytes(front.key.path.read_bytes())
    return path


def test_a_nodes_key_is_never_in_the_spool(spool: Spool, front: Seal) -> None:
    with pytest.raises(ConstruirError, match="other computers could read"):
        node(spool, spool.path / "trust")


def test_certificates_of_ssh_keygen_are_read_and_one_that_has_ended_vouches_for_nothing(tmp_path: Path) -> None:
    for name in ("front", "far"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    for validity, holds in (("always:forever", True), ("20200101:20210101", False)):
        argv = ["ssh-keygen", "-q", "-s", "front", "-I", "far", "-n", "construir", "-O", "clear", "-V", validity]
        subprocess.run([*argv, "far.pub"], cwd=tmp_path, check=True)
        found = certificate.read((tmp_path / "far-cert.pub").read_text())
        assert found.authority == keys.read((tmp_path / "front.pub").read_text(), "it")[0]
        assert found.key == keys.read((tmp_path / "far.pub").read_text(), "it")[0]
        assert (found.name, found.is_valid()) == ("far", holds)


def test_ssh_keygen_shows_what_the_front_has_said(spool: Spool, far: Seal) -> None:
    path = key_place.directory(spool.path) / "nodes/far-cert.pub"
    shown = subprocess.run(["ssh-keygen", "-L", "-f", path], capture_output=True, text=True, check=True).stdout
    assert far.key.public.fingerprint in shown
    for words in ('Key ID: "far"', "Valid: forever", f"construir@{signed.HOST}", "Critical Options: (none)"):
        assert words in shown
