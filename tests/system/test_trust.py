"""A result's way from the appliance that signed it to whoever wants to know: by construir, and by others' programs."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer._key import SSlibKey

from construir_ftp.config import Config
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import sums
from construir_ftp.trust import key_place, keys
from tests.support import images, machines
from tests.support.appliance import CONFIG, NAME, PASSWORD, Appliance, construir

HOST = "build.example.org"
SCRIPT = b"#!/bin/sh\necho hello\necho made >made.txt\n"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory, base: BaseImage) -> Iterator[Appliance]:
    """An appliance with a name."""
    place = tmp_path_factory.mktemp("trusted")
    with Appliance(place, machines.light(f'{CONFIG}[trust]\nname = "{HOST}"\n')).running() as running:
        yield running


@pytest.fixture
def run(trusted: Appliance, tmp_path: Path) -> Command:
    """The command as a contributor types it, who has never been there before."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").touch(mode=0o600)
    (home / ".netrc").write_text(f'machine 127.0.0.1 login {NAME} password "{PASSWORD}"\n')
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CONSTRUIR_"))}
    server, images_path = f"ftp://127.0.0.1:{trusted.port}", str(Config().images_path())
    env = {**kept, "HOME": str(home), "CONSTRUIR_SERVER": server, "CONSTRUIR_IMAGES": images_path}
    return lambda *words: construir(*words, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def done(trusted: Appliance, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a job that has ended."""
    job = images.job_directory(tmp_path_factory.mktemp("job") / "greet", SCRIPT)
    (job / "construir.toml").write_text('outputs = ["*.txt"]\n')
    packed = job.parent / "greet.img.zst"
    assert construir("pack", job, "-o", packed).returncode == 0
    job_id = trusted.submit(packed)
    assert trusted.wait(job_id)["status"] == "success"
    return job_id


def fingerprint(appliance: Appliance) -> str:
    return key_place.known(appliance.spool)[0].fingerprint


def test_a_result_is_verified_when_it_is_fetched_and_offline(
    run: Command, trusted: Appliance, done: str, tmp_path: Path
) -> None:
    fetched = run("fetch", done, "-o", "r")
    assert fetched.returncode == 0, fetched.stderr
    server = f"ftp://127.0.0.1:{trusted.port}"
    known, verified = fetched.stderr.splitlines()
    assert known == (
        f"construir: the key of {server} is {fingerprint(trusted)}; from now on another one is not taken for it"
    )
    result = json.loads((tmp_path / "r/result.json").read_text())
    environment = result["environment"]
    jail = "jail" if environment["jail"].startswith("whole") else "no-whole-jail"
    builder = f"construir://{HOST}/{result['accelerator']}/{jail}"
    assert verified == f"construir: verified: signed by {builder}, key {fingerprint(trusted)}"
    assert environment["engine"].startswith(("QEMU emulator version", "user-mode Linux"))
    assert environment["packing"] == "zstd -3qc -T0"
    assert environment["guest_kernel"]
    assert len(environment["packages_sha256"]) == 64

    again = run("verify", "r", "--server", "ftp://127.0.0.1:1")  # nobody is there, and nobody is asked
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert lines[0].startswith(f"{done}: success")
    assert lines[1] == f"proved: it is signed by {fingerprint(trusted)}, known here as the key of {server}"
    assert lines[2] == "proved: its 8 files are what was signed, and none is missing or added"
    assert sum(line.startswith("not proved: ") for line in lines) == 2

    (tmp_path / "r/artifacts/made.txt").write_text("mad3\n")
    changed = run("verify", "r")
    assert (changed.returncode, changed.stdout) == (74, "")
    assert changed.stderr == "construir: artifacts/made.txt is not what was signed\n"


def test_others_programs_verify_a_result_without_construir(
    run: Command, trusted: Appliance, done: str, tmp_path: Path
) -> None:
    """ssh-keygen and sha256sum for all of it, securesystemslib for the envelope; the key comes by plain FTP."""
    where = f"ftp://127.0.0.1:{trusted.port}"
    for name in ("allowed_signers", "construir.pub"):
        subprocess.run(["curl", "-sSf", "-o", tmp_path / name, f"{where}/{name}"], check=True)
    subprocess.run(["lftp", "-c", f"mirror {where}/done/{done} {tmp_path}/r"], check=True, capture_output=True)
    argv = ["ssh-keygen", "-Y", "verify", "-f", "../allowed_signers", "-I", f"construir@{HOST}", "-n", "construir"]
    with (tmp_path / "r/SHA256SUMS").open("rb") as listed:
        said = subprocess.run(
            [*argv, "-s", "SHA256SUMS.sig"], cwd=tmp_path / "r", stdin=listed, capture_output=True, text=True
        )
    assert said.stdout.startswith(f'Good "construir" signature for construir@{HOST} with ED25519 key '), said.stderr
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=tmp_path / "r", check=True)

    (public,) = keys.read((tmp_path / "construir.pub").read_text(), "it")
    key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public.raw), keyid=public.fingerprint)
    envelope = Envelope.from_dict(json.loads((tmp_path / "r/provenance.intoto.jsonl").read_text()))
    assert list(envelope.verify([key], 1)) == [public.fingerprint]
    listed_sums = sums.parse((tmp_path / "r/SHA256SUMS").read_bytes())
    subjects = {one["name"]: one["digest"]["sha256"] for one in json.loads(envelope.payload)["subject"]}
    assert subjects == {name: listed_sums[name] for name in ("greet.img.zst", "artifacts/made.txt")}

    mirrored = run("verify", "r", "--key", "allowed_signers")
    assert mirrored.returncode == 0, mirrored.stderr
    unknown = run("verify", "r")
    assert unknown.returncode == 79
    assert "name a key that you have from its operator: --key FILE" in unknown.stderr


def test_an_address_is_verified(run: Command, trusted: Appliance, done: str) -> None:
    verified = run("verify", f"ftp://127.0.0.1:{trusted.port}/done/{done}")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith(f"{done}: success")
    refused = run("verify", f"ftp://127.0.0.1:{trusted.port}/queue/{done}")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_who_waits_for_a_job_is_told_that_its_end_is_verified(run: Command, tmp_path: Path) -> None:
    said = run("submit", images.job_directory(tmp_path / "mine", b"#!/bin/sh\nexit 7\n"), "--wait")
    assert said.returncode == 7
    assert said.stderr.splitlines()[-1].startswith(f"construir: verified: signed by construir://{HOST}/")
    assert not {path.name for path in tmp_path.iterdir()} - {"home", "mine"}
