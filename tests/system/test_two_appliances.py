"""Two appliances that built the same, over real FTP: both sign it, and who asks counts both, whatever their keys."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from construir_ftp.config import Config
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.trust import key_place
from tests.support import images, machines
from tests.support.appliance import CONFIG, Appliance, construir
from tests.support.ftpclient import LONG_S

SCRIPT = b"#!/bin/sh\necho made >same.txt\n"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


class Two:
    """The appliances, the upload that both have built, and its id at each."""

    def __init__(self, first: Appliance, second: Appliance, place: Path) -> None:
        self.first, self.second = first, second
        job = images.job_directory(place / "greet", SCRIPT)
        (job / "construir.toml").write_text('outputs = ["*.txt"]\nmemory = "384MiB"\n')
        self.upload = place / "greet.img.zst"
        assert construir("pack", job, "-o", self.upload, "--space", "1MiB").returncode == 0
        self.first_id, self.second_id = first.submit(self.upload), second.submit(self.upload)
        for appliance, job_id in ((first, self.first_id), (second, self.second_id)):
            assert appliance.wait(job_id, 5 * LONG_S)["status"] == "success"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, base: BaseImage) -> Iterator[Two]:
    places = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    more = '[results]\nkeep_upload = "1MiB"\n[trust]\nname = "{}.example.org"\n'
    first, second = (Appliance(place, machines.light(CONFIG + more.format(place.name[:-1]))) for place in places)
    with first.running(), second.running():
        yield Two(first, second, tmp_path_factory.mktemp("upload"))


def url(appliance: Appliance, path: str = "") -> str:
    return f"ftp://127.0.0.1:{appliance.port}{path}"


def key(appliance: Appliance) -> str:
    return key_place.known(appliance.spool)[0].fingerprint


@pytest.fixture
def person(tmp_path: Path) -> Callable[[str], Command]:
    """The command, as somebody types it, by name; who has never been anywhere before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CONSTRUIR_"))}

    def of(name: str) -> Command:
        home = tmp_path / name
        home.mkdir()
        env = {**kept, "HOME": str(home), "CONSTRUIR_IMAGES": str(Config().images_path())}
        return lambda *words: construir(*words, env=env, cwd=home, stdin=subprocess.DEVNULL)

    return of


def at(appliance: Appliance) -> tuple[str, ...]:
    """What makes somebody its operator."""
    return (f"--spool={appliance.spool}", f"--config={appliance.config}")


def test_both_sign_and_whoever_asks_either_server_counts_two(two: Two, person: Callable[[str], Command]) -> None:
    alice = person("alice")
    where = url(two.second, f"/done/{two.second_id}")
    assert alice("fetch", two.first_id, "--server", url(two.first), "-o", "of-first").returncode == 0
    assert alice("fetch", two.second_id, "--server", url(two.second), "-o", "of-second").returncode == 0
    alone = alice("verify", where, "--quorum", "2")
    assert (alone.returncode, alone.stdout) == (79, "")
    assert alone.stderr.splitlines()[-1].endswith("1 of the appliances known here vouch for every artifact, and not 2")

    one = alice("cosign", two.first_id, "--with", "of-second", *at(two.first))
    assert (one.returncode, one.stdout) == (0, "same: artifacts/same.txt\n"), one.stderr
    assert "equivalence.intoto.jsonl: 1 of 2 have signed" in one.stderr
    assert alice("fetch", two.first_id, "--server", url(two.first), "-o", "stated").returncode == 0
    both = alice("cosign", two.second_id, "--with", "stated", *at(two.second))
    assert "equivalence.intoto.jsonl: 2 of 2 have signed" in both.stderr, both.stderr

    asked = alice("verify", where, "--quorum", "2")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines()[-1] == f"proved: {key(two.first)} vouches for every artifact, too"
    assert alice("verify", where, "--quorum", "3").returncode == 79
    assert alice("fetch", two.second_id, "--server", url(two.second), "-o", "kept").returncode == 0
    offline = alice("verify", "kept", "--quorum", "2", "--server", "ftp://127.0.0.1:1")
    assert offline.returncode == 0, offline.stderr

    stranger = person("bob")("verify", where, "--quorum", "2")
    assert stranger.returncode == 79, "who has met one of the two only knows one"


def test_the_other_appliance_rebuilds_and_old_results_stay_good_when_the_first_one_has_another_key(
    two: Two, person: Callable[[str], Command]
) -> None:
    alice, before = person("alice"), key(two.first)
    old = url(two.first, f"/done/{two.first_id}")
    assert alice("fetch", two.first_id, "--server", url(two.first), "-o", "of-first").returncode == 0
    rebuilt = alice("rebuild", "of-first", "-o", "again", *at(two.second))
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "same: artifacts/same.txt\n"), rebuilt.stderr
    assert alice("verify", url(two.second, f"/done/{two.second_id}")).returncode == 0, "it is met"
    assert alice("verify", "of-first", "--quorum", "2").returncode == 0

    two.first.stop()
    for half in ("construir.key", "construir.pub"):
        (two.first.spool / "trust" / half).unlink()
    two.first.start()
    new_id = two.first.submit(two.upload)
    assert two.first.wait(new_id, 5 * LONG_S)["status"] == "success"
    assert key(two.first) != before
    new = url(two.first, f"/done/{new_id}")

    assert alice("verify", old).returncode == 0, "it is signed by the key that was met"
    refused = alice("verify", new)
    assert refused.returncode == 79
    assert f"THE KEY OF {url(two.first)} HAS CHANGED" in refused.stderr
    assert alice("verify", new, "--accept", key(two.first)).returncode == 0
    assert alice("verify", old).returncode == 0
    carol = person("carol")
    for result in (new, old):
        verified = carol("verify", result)
        assert verified.returncode == 0, verified.stderr
    votes = alice("verify", "of-first", "--quorum", "2")
    assert votes.returncode == 0, votes.stderr
    assert alice("verify", "of-first", "--quorum", "3").returncode == 79, "two keys of one appliance are one voice"
