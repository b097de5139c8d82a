"""`construir image build`, against a bare mmdebstrap of the same packages.

Run from the repository: .venv/bin/python -m tests.bench.image_build [ROUNDS]
"""

import shutil
from pathlib import Path

from construir_ftp import architecture, process
from construir_ftp.config import Config
from construir_ftp.image import build as imagebuild
from construir_ftp.image.recipe import Recipe, mmdebstrap_argv
from tests import bench
from tests.bench import Row


def bare_s(place: Path, recipe: Recipe) -> float:
    words = mmdebstrap_argv(place / "bare.tar", recipe)
    plain = [word for word in words if not str(word).startswith(("--dpkgopt", "--customize-hook", "--format"))]
    took = bench.timed(lambda: process.run(plain, timeout_s=3600))
    (place / "bare.tar").unlink()
    return took


def ours_s(place: Path, recipe: Recipe) -> float:
    took = bench.timed(lambda: imagebuild.build(place / "images", recipe))
    shutil.rmtree(place / "images")
    return took


def main(rounds: int) -> None:
    recipe = Recipe(name="bench", suite="bookworm", architecture=architecture.native(), mirror=Config().images.mirror)
    with bench.workplace() as place:
        place.chmod(0o755)  # mmdebstrap may work as another user
        rows = [
            Row("(a) bare mmdebstrap of the same packages", lambda: bare_s(place, recipe)),
            Row("construir image build", lambda: ours_s(place, recipe), "at most 1.3 (a)"),
        ]
        lines = bench.take_turns(rows, rounds)
    bench.print_table("base image", lines)


if __name__ == "__main__":
    main(*bench.counts(3))
