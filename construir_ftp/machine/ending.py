"""What a machine is to do, and how it ended."""

from pathlib import Path

import msgspec

from construir_ftp.jobs.result import BootPath, Claims, Usage
from construir_ftp.machine import guest
from construir_ftp.machine.deadlines import Killed


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine is to do: the job's disk, what it depends on, its limits in seconds, where what it says is kept.

    `layers` are squashfs images, the lowest first; `results` are the disks that the errand names, in its order. A shape
    has to have room for all of them.
    """

    disk: Path
    errand: guest.Errand
    layers: tuple[Path, ...] = ()
    results: tuple[Path, ...] = ()
    timeout_s: float
    idle_timeout_s: float
    boot_timeout_s: float
    mount_timeout_s: float
    output: Path
    console: Path
    log_head_bytes: int
    log_tail_bytes: int


class Ending(msgspec.Struct, kw_only=True):
    """How a machine ended. `claims` is what the guest claims, all else was measured from outside.

    Times are seconds since the Epoch; None for what never happened. `booted` is when the machine was given to its
    job; what a waiting machine did before is not counted. `took_order` is whether the guest has heard what to do: until
    then it has touched nothing of the job. `status` is how its program ended (Popen.returncode),
    `words` what that has said of itself last; `chosen` is whether the guest may have brought about that end.
    `paused_s` is for how long it was stopped meanwhile, by brake. `console_tail` is what the guest's kernel has said
    last, `limit_s` the deadline that it was killed at, in seconds.
    """

    claims: Claims
    boot_path: BootPath = "cold"
    killed: Killed | None = None
    limit_s: float = 0.0
    took_order: bool = False
    status: int | None = None
    chosen: bool = False
    words: str = ""
    console_tail: bytes = b""
    booted: float
    started: float | None = None
    first_output: float | None = None
    ended: float = 0.0
    paused_s: float = 0.0
    output_bytes: int = 0
    usage: Usage = Usage()
