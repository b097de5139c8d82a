"""A layer of one file, by which whoever logs in to a machine has the job's variables.

login(1) forgets the environment it is started in; a login shell reads /etc/profile.d.
"""

import io
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path

from construir_ftp.layers.squash import squash

# Read after the one that puts /job/bin into PATH, since the job's own PATH is the whole of it.
_SCRIPT = "etc/profile.d/zz-job.sh"
# What the visitor's terminal is, and the prompt that a script waits for, are not the job's to say.
_NOT_THE_JOBS = ("TERM", "LINES", "COLUMNS", "PS1")
# Many times as long as all variables can be (wishes).
_MOST_BYTES = 2**20


def squashed(env: dict[str, str], target: Path) -> Path:
    """Make `target`, that layer. Raises CommandError."""
    squash(_tar(_script(env)), target, _MOST_BYTES, newest_s=0)
    return target


def _script(env: dict[str, str]) -> bytes:
    chosen = {name: value for name, value in env.items() if name not in _NOT_THE_JOBS}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in chosen.items()).encode()


def _tar(script: bytes) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for parent in reversed(Path(_SCRIPT).parents[:-1]):
            directory = tarfile.TarInfo(str(parent))
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        file = tarfile.TarInfo(_SCRIPT)
        file.size = len(script)
        archive.addfile(file, io.BytesIO(script))
    yield buffer.getvalue()
