"""past, recipe: a version of a package that only an earlier state of the archive has is fetched from that, for an image
and for a layer.

The archive is one of our own: signed, served on the loopback, with a package whose newer version is in place of the
older. What was signed for the older state has run out by now, as it has of every mirror of snapshots.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.config import ImagesSection
from construir_ftp.errors import CommandError, RefusedError
from construir_ftp.image import past, recipe
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.image.past import Past
from construir_ftp.image.recipe import Recipe
from construir_ftp.layers.apt import Archive
from tests.support import sources
from tests.support.ftpclient import LONG_S
from tests.support.images import run

THEN, SINCE = datetime(2026, 1, 30, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC)
RUN_OUT = "Valid-Until: Fri, 06 Feb 2026 00:00:00 UTC\n"
SUITES = {"debian": ("bookworm", "bookworm-updates"), "debian-security": ("bookworm-security",)}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sources.Signer]:
    made = sources.Signer(tmp_path_factory.mktemp("keys"), "archive")
    yield made
    made.close()


def add(pool: Path, version: str) -> None:
    """Have a state of the archive with this version of the package, and no other."""
    tree = pool / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/greeter").write_text(f"version {version}\n")
    (tree / "DEBIAN/control").write_text(
        f"Package: greeter\nVersion: {version}\nArchitecture: all\nMaintainer: Alice <alice@example.org>\n"
        "Description: greets\n"
    )
    run("dpkg-deb", "--root-owner-group", "--build", tree, pool / f"greeter_{version}_all.deb")


def release(state: Path, suite: str, day: datetime, signer: sources.Signer) -> None:
    """List what is in pool/, in main, and sign the list."""
    place = state / "dists" / suite
    lists = place / "main/binary-amd64"
    lists.mkdir(parents=True)
    index = process.run(["dpkg-scanpackages", "pool"], timeout_s=LONG_S, cwd=state).encode()
    (lists / "Packages").write_bytes(index)
    digest, run_out = hashlib.sha256(index).hexdigest(), RUN_OUT if day == THEN else ""
    (place / "InRelease").write_text(
        f"Suite: {suite}\nCodename: {suite}\nDate: {day:%a, %d %b %Y %H:%M:%S} UTC\nArchitectures: amd64\n"
        f"Components: main\n{run_out}SHA256:\n {digest} {len(index)} main/binary-amd64/Packages\n"
    )
    signer.sign_list(place / "InRelease")


@contextmanager
def archive(place: Path, signer: sources.Signer) -> Iterator[str]:
    """A mirror with two states of the archive: its address."""
    for day, version in ((THEN, "1.0-1"), (SINCE, "1.0-2")):
        for name, suites in SUITES.items():
            state = place / name / f"{day:%Y%m%dT%H%M%SZ}"
            (state / "pool").mkdir(parents=True)
            if name == "debian":
                add(state / "pool", version)
            for suite in suites:
                release(state, suite, day, signer)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def was_built(created: datetime) -> Past:
    files = recipe.ingredients()
    ingredients = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return Past(
        suite="bookworm",
        architecture="amd64",
        include=["greeter"],
        packages={"greeter": "1.0-1"},
        sources=["deb http://archive.example.org/debian bookworm main"],
        created=created,
        date=created,
        root_bytes=2**20,
        recipe_files=hashlib.sha256(ingredients.encode()).hexdigest(),
    )


def installed(was: Past, settings: ImagesSection, place: Path) -> str:
    """Which version comes of the archive that is configured; of all packages of an image only this one is taken."""
    (place / "work").mkdir(parents=True)
    place.chmod(0o755)
    wanted = past.recipe_of(was, "worker", "sha256:" + "0" * 64, settings)
    mode = "root" if os.geteuid() == 0 else "unshare"
    argv = ["mmdebstrap", f"--mode={mode}", "--variant=extract", "--format=directory", "--quiet"]
    argv += ["--include=greeter", f"--keyring={wanted.keyring}", "--architectures=amd64"]
    process.run(
        [*argv, *past.options(was, place / "work"), wanted.suite, place / "root", *wanted.sources()], timeout_s=LONG_S
    )
    return (place / "root/usr/share/greeter").read_text()


def test_the_version_that_was_recorded_comes_from_the_state_of_that_day(signer: sources.Signer, tmp_path: Path) -> None:
    keyring = tmp_path / "archive.gpg"
    keyring.write_bytes(signer.public())
    with archive(tmp_path / "mirror", signer) as mirror:
        of_snapshots = ImagesSection(snapshot_mirror=mirror, keyring=str(keyring))
        assert installed(was_built(THEN), of_snapshots, tmp_path / "then") == "version 1.0-1\n"
        newest = f"deb {mirror}/debian/{SINCE:%Y%m%dT%H%M%SZ} bookworm main"
        todays = ImagesSection(mirror=newest, keyring=str(keyring))
        assert installed(was_built(THEN), todays, tmp_path / "today") == "version 1.0-2\n", "it has no other"


def test_a_layer_on_an_image_of_a_snapshot_has_the_versions_of_that_day(
    signer: sources.Signer, base: BaseImage, tmp_path: Path
) -> None:
    """The image's own apt sources are those of the snapshot, and its keys those that have to have signed it."""
    with archive(tmp_path / "mirror", signer) as mirror:
        for day, version in ((THEN, "1.0-1"), (SINCE, "1.0-2")):
            wanted = snapshot_of(day, mirror, tmp_path)
            packages = Archive(tmp_path / f"{day:%d}", base)
            packages.prepare()
            settings = packages.place / "base/etc/apt"
            (settings / "sources.list").write_text("".join(f"{line}\n" for line in wanted.sources()))
            with pytest.raises(CommandError, match=r"is not signed|NO_PUBKEY"):
                packages.refresh()
            (packages.place / "failed").unlink()
            (settings / "trusted.gpg.d/archive.gpg").write_bytes(signer.public())
            packages.refresh()
            plan = packages.resolve((f"greeter={version}",))
            (deb,) = packages.fetch(plan)
            assert run("dpkg-deb", "--field", deb, "Version") == f"{version}\n"
            with pytest.raises(RefusedError, match=r"Version '1\.0-3' for 'greeter' was not found"):
                packages.resolve(("greeter=1.0-3",))


def snapshot_of(day: datetime, mirror: str, place: Path) -> Recipe:
    (place / "archive.gpg").touch()
    settings = ImagesSection(snapshot_mirror=mirror, keyring=str(place / "archive.gpg"))
    return past.recipe_of(was_built(day), "worker", "sha256:" + "0" * 64, settings)
