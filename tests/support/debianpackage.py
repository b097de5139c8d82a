"""The Debian package, as deploy/package makes it of this checkout."""

import os
import subprocess
from pathlib import Path

from construir_ftp import __version__
from tests.support.places import PROJECT

_PATIENCE_S = 600


def make(output: Path, umask: int = 0o022, **environment: str) -> Path:
    """Make it in a directory, as somebody with that umask and environment; returns the file."""
    output.mkdir()
    argv = [PROJECT / "deploy" / "package", output]
    subprocess.run(argv, umask=umask, env={**os.environ, **environment}, check=True, timeout=_PATIENCE_S)
    (made,) = output.glob(f"construir_{__version__}*_amd64.deb")
    return made
