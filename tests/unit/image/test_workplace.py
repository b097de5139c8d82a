"""What a build that was killed has left."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.places import PROJECT

WORK = """
import sys
sys.path.insert(0, sys.argv[1])
from construir_ftp.image import build
with build._workplace() as place:
    print(place, flush=True)
"""


def test_rest_of_a_build_that_had_just_begun_goes_and_nothing_else(tmp_path: Path) -> None:
    left = Path(tempfile.mkdtemp(prefix="construir-image-", dir="/var/tmp"))
    (tmp_path / "precious").touch()
    argv = [sys.executable, "-c", WORK, str(PROJECT)]
    done = subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert not left.exists()
    assert not Path(done.stdout.strip()).exists()
    assert (tmp_path / "precious").exists()
