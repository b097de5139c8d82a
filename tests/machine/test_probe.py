"""What the probe of KVM says is kept for good, so that one mishap does not decide it."""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from construir_ftp import architecture
from construir_ftp.config import MachineSection
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine import accelerator, guest
from tests.support.ftpclient import LONG_S, wait_until
from tests.support.prison import named

# Whether KVM works here or not: a machine that was asked to use it comes up by TCG.
AS_IF = """#!/bin/sh
for word; do
    shift
    case $word in
        kvm) word=tcg ;;
        host) word=PROCESSOR ;;
        *mitigations=off*) word="LINE" ;;
    esac
    set -- "$@" "$word"
done
exec qemu-system-x86_64 "$@"
"""


@pytest.mark.skipif(not os.access(accelerator.DEVICE, os.R_OK | os.W_OK), reason="no /dev/kvm to be opened")
def test_probe_that_failed_is_made_once_more_before_its_answer_is_kept(base: BaseImage, tmp_path: Path) -> None:
    qemu, images = tmp_path / "qemu", tmp_path / "images"
    kind = architecture.find(base.manifest.architecture)
    line = guest.kernel_line(kind, "tcg")
    qemu.write_text(AS_IF.replace("PROCESSOR", kind.processor).replace("LINE", line))
    qemu.chmod(0o755)
    images.mkdir()
    machine = msgspec.structs.replace(MachineSection(), qemu=str(qemu))
    thread = threading.Thread(target=kill_the_first_machine)
    thread.start()
    assert accelerator.choose(machine, images, base, LONG_S).accelerator == "kvm"
    thread.join()
    (kept,) = images.glob(".kvm-*")
    assert kept.read_text() == ""


def kill_the_first_machine() -> None:
    wait_until(machines, "the probe has begun")
    for pid in machines():
        os.kill(pid, signal.SIGKILL)


def machines() -> list[int]:
    """Those at work, by pid; QEMU is also asked for its version."""
    found = []
    for pid in named("qemu-system-x86"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            if b"-M" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found
