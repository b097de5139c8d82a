"""The Debian package, as deploy/package makes it of this checkout or of a commit before."""

import os
import shutil
import subprocess
from pathlib import Path

from construir_ftp import __version__
from tests.support.places import PROJECT

_PATIENCE_S = 600


def make(output: Path, umask: int = 0o022, checkout: Path = PROJECT, **environment: str) -> Path:
    """Make it in a directory, as somebody with that umask and environment; returns the file.

    It is compressed as little as xz does: what is in it is the same, and most of the time goes into that.
    """
    output.mkdir()
    argv = [checkout / "deploy" / "package", output]
    settings = {**os.environ, "DPKG_DEB_COMPRESSOR_LEVEL": "0", **environment}  # dpkg-deb(1)
    subprocess.run(argv, umask=umask, env=settings, check=True, timeout=_PATIENCE_S)
    (made,) = output.glob(f"construir_{__version__}*_amd64.deb")
    return made


def make_of(commit: str, place: Path) -> Path:
    """Make that of a commit, out of a checkout of its own."""
    checkout = place / "checkout"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", PROJECT, checkout], check=True)
    subprocess.run(["git", "-C", checkout, "checkout", "--quiet", "--detach", commit], check=True)
    # Its libraries may be others: what is fetched for it stays there.
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "bin").symlink_to(PROJECT / ".venv" / "bin")
    if (PROJECT / ".venv" / "libraries").exists():
        shutil.copytree(PROJECT / ".venv" / "libraries", checkout / ".venv" / "libraries")
    return make(place / "out", checkout=checkout)
