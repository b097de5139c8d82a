"""The initramfs: runjob, what it needs to run, and a few drivers, as the kernel unpacks them fastest."""

import os
import shutil
import tempfile
from pathlib import Path

from construir_ftp import process

_TIMEOUT_S = 60


def pack(exported: Path, target: Path, epoch_s: int) -> None:
    """The exported tree -> a newc cpio archive (the kernel's initramfs-buffer-format.rst), not compressed:
    under emulation that is slower. The same files make the same bytes: all are of the time `epoch_s`.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        shutil.copytree(exported, root)
        for directory in ("dev", "root", "sys"):
            (root / directory).mkdir()
        entries = sorted(root.rglob("*"))
        for path in entries:
            # Neither the umask nor the day is to be seen.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (epoch_s, epoch_s))
        names = Path(name) / "names"
        names.write_text("".join(f"{path.relative_to(root)}\n" for path in entries))
        with names.open("rb") as listing, target.open("wb") as archive:
            argv = ["cpio", "--create", "--format=newc", "--owner=0:0", "--reproducible", "--quiet"]
            process.run(argv, stdin=listing, stdout=archive, cwd=root, timeout_s=_TIMEOUT_S)
