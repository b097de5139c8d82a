"""How programs of another architecture run on this host while an image is made: by qemu-user, through binfmt_misc.

Where the host does so by itself (Debian's qemu-user-static, with systemd-binfmt or binfmt-support), there is nothing to
do; elsewhere base-image/emulate does it for the build alone.
"""

import os
from pathlib import Path

from construir_ftp import architecture, process
from construir_ftp.errors import CommandError, ConstruirError

# One file of binfmt.d(5) for each architecture, from Debian's qemu-user-static (since 14: qemu-user-binfmt).
_FORMATS = Path("/usr/lib/binfmt.d")
_TEST_S = 60.0


def prefix(architecture_name: str, emulate: Path) -> list[str | Path]:
    """What to put before a command that runs programs of that architecture; nothing where the kernel runs them anyway.

    `emulate` is the script, which runs the command as root of a user namespace. Raises ConstruirError.
    """
    if runs_here(architecture_name):
        return []
    if problem := why_not(architecture_name):
        raise ConstruirError(f"no image of {architecture_name} can be built here: {problem}")
    own: list[str | Path] = [emulate, "--unshare"] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper", emulate]
    return [*own, _format(architecture_name)]


def runs_here(architecture_name: str) -> bool:
    """Whether the kernel runs programs of that architecture, by itself or through an emulator it was told of."""
    if architecture_name == architecture.native():
        return True
    try:
        process.run(["arch-test", architecture_name], timeout_s=_TEST_S)
    except CommandError:
        return False
    return True


def why_not(architecture_name: str) -> str:
    """What is missing for programs of another architecture to be run in a build, in plain words; empty if nothing."""
    if not process.find("arch-test"):
        return "arch-test is not installed; run: apt install arch-test qemu-user-static"
    if not _format(architecture_name).exists():
        return f"{_format(architecture_name)} is missing; run: apt install qemu-user-static"
    return ""


def _format(architecture_name: str) -> Path:
    return _FORMATS / f"qemu-{architecture.find(architecture_name).qemu_name}.conf"
