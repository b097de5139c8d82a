"""A Debian source from dput to its packages: signed, sent, built as Debian's builders do, fetched by anyone."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.image.baseimage import BaseImage
from tests.support import machines, sources
from tests.support.appliance import CONFIG, NAME, PASSWORD, Appliance, construir

SLOW = machines.config("uml", CONFIG.replace('"10min"', '"2h"'))
HOUR_S = 3600
# On a busy host the archive's lists may come too late for the door, which does not ask for them again for a minute.
LATER = "452 Refused: the package archive's lists can't be fetched at the moment; try again in a minute"
TRIES, MINUTE_S = 5, 60


@pytest.fixture
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sources.Signer]:
    signer = sources.Signer(tmp_path_factory.mktemp("keys"), NAME)
    yield signer
    signer.close()


def dput(appliance: Appliance, changes: Path, home: Path) -> None:
    address = f"[construir]\nfqdn = 127.0.0.1:{appliance.port}\nmethod = ftp\nincoming = /queue\nlogin = {NAME}\n"
    (home / ".dput.cf").write_text(f"{address}allow_unsigned_uploads = 1\n")
    env = process.environment(HOME=str(home))
    for _ in range(TRIES):
        done = subprocess.run(
            ["dput", "-u", "construir", changes],
            input=f"{PASSWORD}\n",
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
            check=False,
        )
        if LATER not in done.stdout:
            break
        time.sleep(MINUTE_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow("installing a compiler and building a package takes minutes")
def test_signed_source_that_dput_sends_is_built_as_debians_builders_do(
    tmp_path: Path, uml_base: BaseImage, signer: sources.Signer
) -> None:
    assert uml_base.manifest.uml
    tree = sources.tree(tmp_path / "source", version="1:1.0+x1", depends="file, elsewhere [arm64], booter <stage1>")
    changes = sources.build(tree)
    signer.sign(changes)
    with Appliance(tmp_path, SLOW).running() as appliance:
        (tmp_path / "key.asc").write_bytes(signer.public("--armor"))
        here = (f"--config={appliance.config}", f"--spool={appliance.spool}")
        construir("user", "set", NAME, "--keyring", tmp_path / "key.asc", *here, check=True)
        dput(appliance, changes, tmp_path)
        (job,) = {name for state in ("queue", "running", "done") for name in appliance.states()[state]}
        result = appliance.wait(job, HOUR_S)
        assert result["status"] == "success", appliance.fetch(job, "output.log").decode()[-4000:]
        names = {artifact["name"] for artifact in result["artifacts"]}
        assert names == {"words_1.0+x1_all.deb", "words_1.0+x1_amd64.buildinfo", "words_1.0+x1_amd64.changes"}
        told = appliance.fetch(job, "artifacts/words_1.0+x1_amd64.buildinfo").decode()
        package = tmp_path / "words.deb"
        package.write_bytes(appliance.fetch(job, "artifacts/words_1.0+x1_all.deb"))
    assert "Build-Path: /build/reproducible-path/words-1.0+x1\n" in told
    assert '\n LC_ALL="C.UTF-8"\n' in told
    assert '\n DEB_BUILD_OPTIONS="parallel=1"\n' in told
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path / "installed"], check=True)
    assert (tmp_path / "installed/usr/share/doc/words/words").read_text() == "a few words\n"
