"""A result made once more: run again, rebuilt and compared, and signed by two who made the same."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from construir_ftp.config import Config
from construir_ftp.image import baseimage, versions
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.apt import Archive
from construir_ftp.layers.store import ARCHIVES
from construir_ftp.trust import key_place
from tests.support import images, machines
from tests.support.appliance import CONFIG, Appliance, construir
from tests.support.baseimages import BUILD_S
from tests.support.debarchive import DebArchive
from tests.support.ftpclient import LONG_S

# What it makes is the same each time, but for one file; what it was made of tells whether it begins or has ended. The
# time is that which construir pack gives.
SCRIPT = b"""#!/bin/sh
if [ -e same.txt ]; then echo "it had ended"; else echo "it begins"; fi
echo "$(uname -n) $PWD $(nproc) $SOURCE_DATE_EPOCH"
echo made >same.txt
date +%s.%N | gzip --no-name >when.gz
"""
# So many processors a job asks for: two are no default, and a user-mode machine has one.
CPUS = {"light": 1, "default": 2}
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def packed(place: Path, outputs: str, script: bytes = SCRIPT, more: str = "", cpus: int = 1) -> Path:
    job = images.job_directory(place / "greet", script)
    (job / "construir.toml").write_text(f"outputs = {outputs}\nmemory = '384MiB'\ncpus = {cpus}\n{more}")
    upload = place / "greet.img.zst"
    assert construir("pack", job, "-o", upload).returncode == 0
    return upload


class World:
    """An appliance, with results of it by the names of their jobs, and another one's configuration and spool."""

    def __init__(self, appliance: Appliance, place: Path, config: str, uploads: dict[str, Path]) -> None:
        self.appliance, self.place, self.uploads = appliance, place, uploads
        self.ids = {name: appliance.submit(upload) for name, upload in uploads.items()}
        for job_id in self.ids.values():
            assert appliance.wait(job_id, 5 * LONG_S)["status"] == "success"
        self.elsewhere = place / "elsewhere.toml"
        self.elsewhere.write_text(f'{config}[trust]\nname = "elsewhere.example.org"\n')
        self.spool = place / "elsewhere"

    def somebody(self, place: Path, name: str) -> Command:
        """The command, of somebody in `place` who has fetched that result, and has a spool of their own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CONSTRUIR_"))}
        here = {"CONSTRUIR_CONFIG": str(self.elsewhere), "CONSTRUIR_SPOOL": str(self.spool)}
        server = f"ftp://127.0.0.1:{self.appliance.port}"
        env = {**kept, **here, "HOME": str(place), "CONSTRUIR_SERVER": server}
        env["CONSTRUIR_IMAGES"] = str(Config().images_path())

        def typed(
            *words: str | Path, timeout_s: float = 5 * LONG_S, **changes: str
        ) -> "subprocess.CompletedProcess[str]":
            return construir(*words, timeout_s=timeout_s, env={**env, **changes}, cwd=place, stdin=subprocess.DEVNULL)

        assert typed("fetch", self.ids[name], "-o", name).returncode == 0
        return typed


@pytest.fixture(
    scope="module",
    params=["light", pytest.param("default", marks=pytest.mark.slow("the same was seen with quick machines"))],
)
def world(tmp_path_factory: pytest.TempPathFactory, base: BaseImage, request: pytest.FixtureRequest) -> Iterator[World]:
    """With the results `same` and `varied`, made by machines that start soonest, or by the default ones."""
    place, cpus = tmp_path_factory.mktemp("world"), CPUS[request.param]
    (place / "varied").mkdir()
    uploads = {
        "same": packed(place, '["*.txt"]', cpus=cpus),
        "varied": packed(place / "varied", '["*.txt", "*.gz"]', cpus=cpus),
    }
    config = machines.light(CONFIG) if request.param == "light" else CONFIG
    with Appliance(place, f'{config}[results]\nkeep_upload = "1MiB"\n').running() as appliance:
        yield World(appliance, place, config, uploads)


WORLD_OF_DEFAULT = pytest.mark.parametrize("world", ["default"], indirect=True)


def test_a_result_is_run_again_as_it_began(world: World, tmp_path: Path) -> None:
    run = world.somebody(tmp_path, "same")
    began = run("rerun", "same", "-o", "began")
    told = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("same", "began")]
    cpus = told[0]["cpus"]
    assert (began.returncode, began.stdout) == (0, f"it begins\ngreet /job {cpus} 315619200\n"), began.stderr
    assert (tmp_path / "same/output.log").read_text() == began.stdout, "it was so at first, too"
    assert "the machine was not the same" not in began.stderr
    assert f"running {world.ids['same']}/1 again, as it began" in began.stderr
    for key in ("upload_sha256", "base_image", "memory_bytes", "cpus", "used", "accelerator"):
        assert told[0][key] == told[1][key], key
    assert told[0]["environment"]["processor"] == told[1]["environment"]["processor"]
    wishes = [(tmp_path / name / "construir.toml").read_text() for name in ("same", "began")]
    assert 'SOURCE_DATE_EPOCH = "315619200"' in wishes[0]
    assert wishes[1].splitlines()[-1] == wishes[0].splitlines()[-1]


def test_a_result_without_its_upload_is_run_again_as_it_ended(world: World, tmp_path: Path) -> None:
    run = world.somebody(tmp_path, "same")
    shutil.rmtree(tmp_path / "same/uploaded")
    ended = run("rerun", "same", "-o", "ended")
    at_first = (tmp_path / "same/output.log").read_text()
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == at_first.replace("it begins", "it had ended") != at_first

    wrong = run("rerun", "same", "--upload", tmp_path / "same/greet.img.zst")
    assert wrong.returncode == 2
    assert "is not what was uploaded" in wrong.stderr


def keys_of_both(world: World, place: Path) -> Path:
    """A file with the keys of the appliance and of who has rebuilt."""
    signers = (key_place.directory(spool) / "allowed_signers" for spool in (world.spool, world.appliance.spool))
    both = place / "both"
    both.write_bytes(b"".join(path.read_bytes() for path in signers))
    return both


def test_what_is_rebuilt_alike_from_a_provenance_alone_is_stated_and_signed(world: World, tmp_path: Path) -> None:
    run = world.somebody(tmp_path, "same")
    (tmp_path / "alone").mkdir()
    provenance = shutil.copy(tmp_path / "same/provenance.intoto.jsonl", tmp_path / "alone")
    lacking = run("rebuild", provenance, "-o", "again")
    assert lacking.returncode == 2
    assert "does not have the upload; name it: --upload FILE" in lacking.stderr
    (tmp_path / "images").mkdir()
    (tmp_path / "images/.versions").symlink_to(Config().images_path() / ".versions")  # of which none is live
    none_live = str(tmp_path / "images")
    rebuilt = run("rebuild", provenance, "--upload", world.uploads["same"], "-o", "again", CONSTRUIR_IMAGES=none_live)
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "same: artifacts/same.txt\n"), rebuilt.stderr

    statements = tmp_path / "same/equivalence.intoto.jsonl"
    shutil.copy(tmp_path / "alone/equivalence.intoto.jsonl", statements)
    own = run("verify", "same", "--quorum", "2")
    assert own.returncode == 0, "this computer's own key is known to it"
    alone = run("verify", "same", "--quorum", "2", "--spool", tmp_path / "elsewhere")
    assert alone.returncode == 79
    assert alone.stderr == "construir: 1 of the appliances known here vouch for every artifact, and not 2\n"
    both = keys_of_both(world, tmp_path)
    two = run("verify", "same", "--quorum", "2", "--key", both)
    assert two.returncode == 0, two.stderr
    rebuilder = key_place.known(world.spool)[0].fingerprint
    assert two.stdout.splitlines()[-1] == f"proved: {rebuilder} vouches for every artifact, too"

    told = json.loads(statements.read_text())
    told["signatures"][0]["sig"] = "A" * 86 + "=="
    statements.write_text(json.dumps(told) + "\n")
    assert run("verify", "same", "--quorum", "2", "--key", both).returncode == 79


def test_what_is_not_alike_is_named(world: World, tmp_path: Path) -> None:
    run = world.somebody(tmp_path, "varied")
    # diffoscope is one of the tests' own programs.
    rebuilt = run("rebuild", "varied", "-o", "again", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert rebuilt.returncode == 1
    same, different, *told = rebuilt.stdout.splitlines()
    assert (same, different) == ("same: artifacts/same.txt", "different: artifacts/when.gz")
    assert told[0].endswith("varied/artifacts/when.gz")
    when = [gzip.decompress((tmp_path / name / "artifacts/when.gz").read_bytes()) for name in ("varied", "again")]
    assert told[-2:] == [f"  │ -{when[0].decode().strip()}", f"  │ +{when[1].decode().strip()}"]
    assert "not 2" in run("verify", "varied", "--quorum", "2", "--key", keys_of_both(world, tmp_path)).stderr

    changed = tmp_path / "varied/output.log"
    changed.write_bytes(b"it lies\n")
    refused = run("rebuild", "varied", "-o", "third")
    assert (refused.returncode, refused.stdout) == (74, "")
    assert not (tmp_path / "third").exists()


def test_two_appliances_vote(world: World, tmp_path: Path) -> None:
    """Each has built the upload, and each signs the statement that both made the same."""
    run = world.somebody(tmp_path, "same")
    assert run("run", world.uploads["same"], "-o", "theirs").returncode == 0
    both = keys_of_both(world, tmp_path)
    first = run("cosign", "theirs", "--with", "same", "--key", both)
    assert (first.returncode, first.stdout) == (0, "same: artifacts/same.txt\n"), first.stderr
    assert "equivalence.intoto.jsonl: 1 of 2 have signed" in first.stderr

    stranger = run("cosign", "same", "--with", "theirs", "--key", both)
    assert stranger.returncode == 79
    assert "was not made here" in stranger.stderr

    here = {"CONSTRUIR_SPOOL": str(world.appliance.spool), "CONSTRUIR_CONFIG": str(world.appliance.config)}
    second = run("cosign", "same", "--with", "theirs", "--key", both, **here)
    assert (second.returncode, second.stdout) == (0, "same: artifacts/same.txt\n"), second.stderr
    assert "equivalence.intoto.jsonl: 2 of 2 have signed" in second.stderr
    assert run("verify", "same", "--quorum", "2", "--key", both).returncode == 0
    assert run("verify", "same", "--quorum", "3", "--key", both).returncode == 79


@WORLD_OF_DEFAULT
@pytest.mark.slow("a base image is built, which takes minutes")
def test_a_base_image_that_is_not_here_is_built_again_and_is_the_same(
    world: World, base: BaseImage, tmp_path: Path
) -> None:
    """The archive may have changed since the image was built; then what it lacks is named, and nothing is run."""
    images_here = tmp_path / "none"
    run = world.somebody(tmp_path, "same")
    rebuilt = run("rebuild", "same", "-o", "again", timeout_s=2 * BUILD_S, CONSTRUIR_IMAGES=str(images_here))
    digest, stored = base.manifest.digest(), versions.stored_as(base.name, base.manifest.digest())
    told = f"base image {base.name}, {digest}, is not here: building it again, of the same packages, from today's"
    assert told in rebuilt.stderr
    if rebuilt.returncode == 1:
        assert re.search(
            r"no longer has the version: \S+ \S+ \(there is .*; set images.snapshot_mirror", rebuilt.stderr
        )
        assert f"copy the directory {stored} of the images from where the job ran" in rebuilt.stderr
        assert versions.names(images_here) == []
        pytest.skip(
            f"the archive has changed since {base.manifest.created:%Y-%m-%d}: {rebuilt.stderr.splitlines()[-1]}"
        )
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "same: artifacts/same.txt\n"), rebuilt.stderr
    (again,) = versions.every(images_here, base.name)
    assert again.manifest.digest() == digest
    assert again.path == images_here / stored
    assert baseimage.names(images_here) == [], "it is not live"


@WORLD_OF_DEFAULT
@pytest.mark.slow("the package is installed twice, in a machine each time")
def test_packages_that_are_not_here_are_installed_again_or_brought(
    world: World, base: BaseImage, tmp_path: Path
) -> None:
    run = world.somebody(tmp_path, "same")
    archive = DebArchive(tmp_path / "archive")
    archive.add("greeter", postinst="date >/usr/share/greeted")
    for spool in (world.appliance.spool, Spool.prepare(world.spool).path):
        archive.serve(spool, base)
    (tmp_path / "packaged").mkdir()
    script = b"#!/bin/sh\ncp /usr/share/greeter made.txt\n"
    wishes = '[dependencies]\npackages = ["greeter"]\n'
    job_id = world.appliance.submit(packed(tmp_path / "packaged", '["made.txt"]', script, wishes))
    (layer,) = world.appliance.wait(job_id, 5 * LONG_S)["used"]["layers"]
    assert layer["contents"] == ["greeter:all=1.0"]
    assert run("fetch", job_id, "-o", "first").returncode == 0

    rebuilt = run("rebuild", "first", "-o", "second", CONSTRUIR_SERVER="")
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "same: artifacts/made.txt\n"), rebuilt.stderr
    told = rebuilt.stderr.splitlines()
    assert f"construir: installing the packages of layer {layer['name']} again" in told
    assert f"construir: layer {layer['name']} has the same packages here, installed at another time" in told
    (other,) = json.loads((tmp_path / "second/result.json").read_text())["used"]["layers"]
    assert (other["name"], other["contents"]) == (layer["name"], layer["contents"])
    assert other["sha256"] != layer["sha256"]

    shutil.rmtree(world.spool / "layers" / layer["name"])
    (tmp_path / "empty").mkdir()
    DebArchive(tmp_path / "empty/archive").serve(world.spool, base)
    (Archive(world.spool / "layers" / ARCHIVES, base).place / "refreshed").unlink()
    gone = run("rebuild", "first", "-o", "none", CONSTRUIR_SERVER="")
    assert gone.returncode == 1
    assert f"layer {layer['name']} can't be made again: dependencies.packages: " in gone.stderr
    assert "if the appliance that has run the job still has it, name that: --server" in gone.stderr

    assert run("rebuild", "first", "-o", "third").returncode == 0
    (brought,) = json.loads((tmp_path / "third/result.json").read_text())["used"]["layers"]
    assert brought == layer, "the server has it"
