"""A file system of a few MiB that exists for one script only: what happens when the disk is full."""

import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp import process
from tests.support.places import PROJECT


def run(directory: Path, size_bytes: int, script: str, *arguments: str | Path) -> str:
    """Run a Python script with a tmpfs of `size_bytes` on `directory`, in a mount namespace of its own (unshare(1)).

    The script finds the directory, then the arguments, in sys.argv. Returns what it printed. Skips the test
    where namespaces are not to be had.
    """
    directory.mkdir()
    mount = 'mount -t tmpfs -o "size=$1" none "$2" || exit 77; shift 2; exec "$@"'
    python = [sys.executable, "-c", script, str(directory), *map(str, arguments)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(size_bytes), str(directory), *python],
        env=process.environment(PYTHONPATH=str(PROJECT)),
        capture_output=True,
        timeout=120,
        text=True,
        check=False,
    )
    if done.returncode == 77 or done.stderr.startswith("unshare: "):
        pytest.skip(f"no mount namespace to be had here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
