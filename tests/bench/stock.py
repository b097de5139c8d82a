"""A stock Debian machine with systemd, made and run by Debian's debvm: what others would use."""

import os
import signal
import subprocess
import time
from pathlib import Path

from construir_ftp import process
from construir_ftp.config import Config
from construir_ftp.machine.shape import Shape
from tests.bench import Row

# debvm's root has no password, and is logged in on the serial console.
_PROMPT = b"root@testvm:~#"
# The shell has to work it out: the terminal's echo of the command is no answer.
_COMMAND, _ANSWER = b"echo first-$((40 + 2))\n", b"first-42"
_BUILD_S = 3600.0


def rows(place: Path, shape: Shape, rounds: int) -> list[Row]:
    """The row of the stock machine, whose image is made now; none where it is not wanted, or there is no debvm."""
    if not rounds:
        return []
    if process.find("debvm-run") is None:
        print("no row (b): debvm-run is not installed; run: apt install debvm")
        return []
    image = place / "stock.img"
    make(image, shape.base.manifest.suite, Config().images.mirror)
    name = "(b) stock Debian, systemd, debvm-run, to a command"
    return [Row(name, lambda: first_command_s(image, shape), most=rounds)]


def make(image: Path, suite: str, mirror: str) -> None:
    """A disk image as debvm-create(1) makes it without further options."""
    process.run(["debvm-create", "-r", suite, "-o", image, "--", *([mirror] if mirror else [])], timeout_s=_BUILD_S)


def first_command_s(image: Path, shape: Shape) -> float:
    """Seconds from the start of debvm-run(1) to the answer to a command typed as soon as there is a prompt.

    Under the accelerator of `shape`; everything else is debvm-run's own choice. The image stays as it is.
    """
    # As debvm-run chooses them, had it known whether KVM works.
    cpu = "host" if shape.accelerator == "kvm" else "qemu64"
    argv: list[str | Path] = [
        "debvm-run",
        "-i",
        image,
        "--",
        "-snapshot",
        "-machine",
        f"accel={shape.accelerator}",
        "-cpu",
        cpu,
    ]
    env = process.environment(TMPDIR=str(image.parent))  # where it leaves kernel and initrd when it is killed
    begun = time.monotonic()
    debvm = process.spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert debvm.stdin is not None
    assert debvm.stdout is not None
    with debvm:
        try:
            _read_until(_PROMPT, debvm.stdout.fileno())
            os.write(debvm.stdin.fileno(), _COMMAND)
            _read_until(_ANSWER, debvm.stdout.fileno())
            return time.monotonic() - begun
        finally:
            os.killpg(debvm.pid, signal.SIGKILL)


def _read_until(mark: bytes, descriptor: int) -> None:
    said = b""
    while mark not in said:
        block = os.read(descriptor, 4096)
        if not block:
            raise EOFError(f"debvm-run ended before it said {mark!r}; its last words: {said[-400:]!r}")
        said += block
