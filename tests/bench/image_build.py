"""`construir image build`, against a bare mmdebstrap of the same packages.

Run from the repository: .venv/bin/python -m tests.bench.image_build [ROUNDS]
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from construir_ftp import process
from construir_ftp.config import Config
from construir_ftp.image import build as imagebuild


def timed(action: Callable[[], object]) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def main(rounds: int) -> None:
    mirror = Config().images.mirror
    recipe = imagebuild.Recipe(name="bench", suite="bookworm", mirror=mirror)
    bare, ours = [], []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        ordinary = imagebuild.mmdebstrap_argv(place / "bare.tar", recipe)
        plain = [word for word in ordinary if not str(word).startswith(("--dpkgopt", "--customize-hook", "--format"))]
        for _ in range(rounds):
            bare.append(timed(lambda: process.run(plain, timeout_s=3600)))
            (place / "bare.tar").unlink()
            ours.append(timed(lambda: imagebuild.build(place / "images", recipe)))
            shutil.rmtree(place / "images")
    base_s, our_s = statistics.median(bare), statistics.median(ours)
    print(f"medians of {rounds} pairs")
    print(f"bare mmdebstrap of the same packages   {base_s:6.1f} s   1.00")
    print(f"construir image build                  {our_s:6.1f} s   {our_s / base_s:.2f}   (aim: at most 1.30)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
