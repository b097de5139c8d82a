"""Who vouches for a result is counted by appliances, whatever keys each of them has had."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from construir_ftp.client import address
from construir_ftp.client.known_keys import KnownKeys
from construir_ftp.errors import DamagedError
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust import equivalence, recipe, verify
from tests.support import signed, smalldisk
from tests.support.appliance import construir


@pytest.mark.parametrize("key_file", [(), ("--key", "both")], ids=["met", "file"])
def test_two_keys_of_one_server_are_one_voice(spool: Spool, tmp_path: Path, key_file: tuple[str, ...]) -> None:
    first, second = signed.seal(spool.path), signed.seal(tmp_path / "other")
    place = signed.result(spool, first)
    run = recipe.of(verify.check(place, [first.key.public]).provenance)
    equivalence.sign(place, second, equivalence.stated([run], equivalence.compare([run])))
    both = [first.key.public, second.key.public]
    (tmp_path / "both").write_text("".join(f"{key.line()}\n" for key in both))
    state = tmp_path / "state"
    env = {**os.environ, "XDG_STATE_HOME": str(state), "HOME": str(tmp_path)}
    known = KnownKeys(state / "construir")

    def voted() -> "subprocess.CompletedProcess[str]":
        return construir("verify", place, "--quorum", "2", *key_file, env=env, cwd=tmp_path)

    known.keep(address.parse("ftp://build.example.org"), both)
    alone = voted()
    assert alone.returncode == 79
    assert alone.stderr == "construir: 1 of the appliances known here vouch for every artifact, and not 2\n"

    known.path(address.parse("ftp://build.example.org")).unlink()
    for name, key in zip(("build", "other"), both, strict=True):
        known.keep(address.parse(f"ftp://{name}.example.org"), [key])
    two = voted()
    assert two.returncode == 0, two.stderr
    assert two.stdout.splitlines()[-1] == f"proved: {second.key.public.fingerprint} vouches for every artifact, too"


def test_two_keys_of_this_computer_are_one_voice(spool: Spool, tmp_path: Path) -> None:
    first = signed.seal(spool.path)
    place = signed.result(spool, first)
    run = recipe.of(verify.check(place, [first.key.public]).provenance)
    for half in ("construir.key", "construir.pub"):
        (spool.path / "trust" / half).unlink()
    equivalence.sign(place, signed.seal(spool.path), equivalence.stated([run], equivalence.compare([run])))
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "CONSTRUIR_SPOOL": str(spool.path)}
    alone = construir("verify", place, "--quorum", "2", env=env, cwd=tmp_path)
    assert alone.returncode == 79
    assert alone.stderr == "construir: 1 of the appliances known here vouch for every artifact, and not 2\n"


def test_who_has_made_the_same_of_another_upload_does_not_vouch(spool: Spool, tmp_path: Path) -> None:
    """Else a lying appliance could show any sources for what others have built, in good faith, of its own."""
    first, second = signed.seal(spool.path), signed.seal(tmp_path / "other")
    place, both = signed.result(spool, first), [first.key.public, second.key.public]
    proof = verify.check(place, both)
    ours = recipe.of(proof.provenance)
    other = msgspec.structs.replace(ours, run="20261129T120001Z-0000-other/1", upload_sha256="0" * 64)
    again = msgspec.structs.replace(ours, run="20261129T120002Z-0000-again/1")
    for runs, voices in (([other], 1), ([other, again], 1), ([ours, other], 1), ([again], 1), ([ours, again], 2)):
        statement = equivalence.stated(runs, equivalence.compare(runs))
        equivalence.sign(place, second, statement)
        assert len(equivalence.vouching(place, proof, both)) == voices, runs


ON_A_FULL_DISK = """
import shutil, sys
from pathlib import Path
from construir_ftp.trust import equivalence

place, statement = map(Path, sys.argv[1:])
(place / "fill").write_bytes(bytes(64 * 1024))
try:
    equivalence.take(place, statement.read_bytes())
except OSError as error:
    print(error.strerror, sorted(path.name for path in place.iterdir()))
"""


def test_a_full_disk_leaves_no_file_that_is_no_part_of_the_result(spool: Spool, tmp_path: Path) -> None:
    seal = signed.seal(spool.path)
    place = signed.result(spool, seal)
    statement = shutil.copy(place / "provenance.intoto.jsonl", tmp_path / "statement")
    said = smalldisk.run(tmp_path / "small", 64 * 1024, ON_A_FULL_DISK, statement)
    assert said == "No space left on device ['fill']\n"


def test_what_somebody_shows_takes_no_signature_away(spool: Spool, tmp_path: Path) -> None:
    """A statement that a server shows, with a signature in another's name that is none, stands beside the good one."""
    first, second = signed.seal(spool.path), signed.seal(tmp_path / "other")
    place, both = signed.result(spool, first), [first.key.public, second.key.public]
    proof = verify.check(place, both)
    run = recipe.of(proof.provenance)
    good = equivalence.sign(place, second, equivalence.stated([run], equivalence.compare([run])))
    (signature,) = good.signatures
    forged = msgspec.structs.replace(good, signatures=(msgspec.structs.replace(signature, sig=bytes(64)),))
    for _ in range(2):
        equivalence.take(place, forged.line())
    (kept,) = equivalence.beside(place)
    assert len(kept.signatures) == 2
    assert equivalence.vouching(place, proof, both) == both
    verify.check(place, both)
    with pytest.raises(DamagedError):
        equivalence.take(place, b"nonsense\n")
    assert equivalence.beside(place) == [kept]
