"""The base image with a user-mode kernel that tests boot: built once, as deploy/test does the others.

python -m tests.support.umlimage
"""

import subprocess
import tempfile
from pathlib import Path

from construir_ftp.config import Config, ImagesSection
from tests.support.appliance import construir
from tests.support.baseimages import BUILD_S

NAME = "bookworm-amd64-uml"


def mirror() -> str:
    """The mirror of Debian's archive that this host has."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=True, capture_output=True, text=True
    )
    return next((uri for uri in listed.stdout.split() if "security" not in uri), "")


def source() -> str:
    """Where to take the kernel from: the configured release of that mirror, whatever the date that its list of packages
    is valid until. A mirror that stands still is as good for a test.
    """
    release = ImagesSection().uml_source
    return f"{release} deb [check-valid-until=no] {mirror()} {release} main" if mirror() else release


def build(images: Path, *options: str) -> str:
    """Build it by the command; returns what that said."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as settings:
        settings.write(f'[images]\numl_source = "{source()}"\n')
        settings.flush()
        arguments = ["--uml", NAME, f"--config={settings.name}", f"--images={images}", *options]
        built = construir("image", "build", *arguments, timeout_s=BUILD_S)
    assert built.returncode == 0, built.stderr
    return built.stdout


if __name__ == "__main__":
    print(build(Config().images_path()), end="")
