"""The contract with the inside of the machine: the kernel line, the ports, the messages. Its other end is runjob.

The control port carries lines. From the guest: "ready", then "clock", which asks for the time, "started" just before
run.sh, "signal N", "poweroff" and "oom NAME" where they explain what comes next, "exit N" or "error <why the job can't
be run>", "unwritten <where>" if a write to the job's file system or the
root's was lost, and "clean" once nothing writes to the job's disk any more. To the guest: "go key=value ...", after
which it touches the job's disk for the first time, and the time; or "rehearse ...", the same, after which it is "ready"
again. Nothing the guest says is more than a claim: it runs the job as root.
"""

import functools
import os
import time
from pathlib import Path

import msgspec

from construir_ftp.architecture import Architecture
from construir_ftp.jobs.result import Claims

CONTROL_PORT = "construir.control"
OUTPUT_PORT = "construir.output"
JOB_SERIAL = "job"
# Longer than any message; what a hostile guest sends beyond it is dropped.
MAX_LINE_BYTES = 1024
_SEED_BYTES = 64
# A process's name has 15 bytes at most (TASK_COMM_LEN, linux/sched.h), each four characters as an escape.
_MOST_NAME_CHARACTERS = 60
# Initialisations that a worker can do without (Debian 12's kernel; a name that another lacks is ignored).
_LEFT_OUT = ("init_kprobe_trace", "init_trace_printk_function_export", "crypto_kdf108_init")
# What a microvm has no part of: the search for a PCI bus ends in an error above each login.
_OF_A_PC = ("pci_arch_init",)


def take(claims: Claims, line: str) -> None:
    """Note one message of the guest's. Each is taken once, the first time; nonsense is ignored."""
    word, _, rest = line.partition(" ")
    match word:
        case "ready":
            claims.ready = True
        case "started":
            claims.started = True
        case "exit" if claims.exit_code is None and rest.isascii() and rest.isdigit():
            claims.exit_code = min(int(rest), 255)
        case "error" if claims.error is None:
            claims.error = rest[:200]
        case "signal" if claims.signal is None and rest.isascii() and rest.isdigit():
            claims.signal = min(int(rest), 255)
        case "poweroff":
            claims.powered_off = True
        case "oom" if claims.starved is None:
            claims.starved = rest[:_MOST_NAME_CHARACTERS]
        case "unwritten" if claims.unwritten is None and rest in ("/", "/job", "within"):
            claims.unwritten = rest
        case "clean":
            claims.clean = True


class Messages:
    """Bytes from the control port -> whole lines, however they were cut on the way."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, block: bytes) -> list[str]:
        """The lines `block` completes, without their ends; what is not ASCII, or can't be printed, comes as escapes."""
        *lines, rest = (self._partial + block).split(b"\n")
        self._partial = rest[:MAX_LINE_BYTES]
        return [_escaped(line[:MAX_LINE_BYTES]) for line in lines]


def _escaped(line: bytes) -> str:
    text = line.decode("ascii", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest is told to do. `layers` is how many disks are to be laid over its root, the first one lowest;
    `results` are the name and the file system of those after them, for /deps. With `keeps_changes` what is changed on
    the root goes to changes/ on the job's disk, as overlayfs has it.
    """

    hostname: str
    filesystem: str
    run: str = "./run.sh"
    env: dict[str, str] = {}
    layers: int = 0
    results: tuple[tuple[str, str], ...] = ()
    keeps_changes: bool = False


def read_only_serial(number: int) -> str:
    """The serial number that the guest knows a read-only disk by."""
    return f"more{number}"


def order(word: str, errand: Errand) -> bytes:
    """What a waiting guest is told, "go", "rehearse" or "shell": key=value pairs, free texts in hexadecimal."""
    pairs = {
        "seed": os.urandom(_SEED_BYTES).hex(),
        "hostname": errand.hostname,
        "filesystem": errand.filesystem,
        "run": errand.run.encode().hex(),
        "env": "\0".join(f"{key}={value}" for key, value in errand.env.items()).encode().hex(),
        "layers": errand.layers,
        "results": ",".join(f"{name}:{filesystem}" for name, filesystem in errand.results),
        "changes": int(errand.keeps_changes),
    }
    return f"{word} {' '.join(f'{key}={value}' for key, value in pairs.items())}\n".encode()


def clock() -> bytes:
    """The answer to "clock": seconds since the Epoch, with nine decimals."""
    now_ns = time.time_ns()
    return f"{now_ns // 10**9}.{now_ns % 10**9:09d}\n".encode()


def kernel_line(kind: Architecture, accelerator: str) -> str:
    """The worker kernel's parameters (Documentation/admin-guide/kernel-parameters.rst)."""
    words = [f"console={kind.console}", "quiet", "panic=-1", "cryptomgr.notests", "rcupdate.rcu_expedited=1"]
    # Nothing in the guest needs protection from the rest of it: the job is root.
    words += ["mitigations=off", "init_on_alloc=0", "audit=0", "lsm="]
    # What nobody uses in a worker: tracing of the kernel, a self-test of its cryptography. Together 0.1 s under TCG.
    left_out = (*_LEFT_OUT, *(_OF_A_PC if kind.name == "amd64" else ()))
    words.append(f"initcall_blacklist={','.join(left_out)}")
    if accelerator == "tcg":
        # Address randomisation defeats the reuse of translated code: 30 bash starts take 1828 ms with, 369 without.
        words.append("norandmaps")
    if kind.name == "amd64":
        words += _words_of_a_microvm(accelerator)
    return " ".join(words)


def _words_of_a_microvm(accelerator: str) -> list[str]:
    # reboot=t: it has no keyboard controller, by which a clone's kernel would try to restart it for ever.
    return ["reboot=t", "tsc=reliable", *([f"tsc_early_khz={_tsc_khz()}"] if accelerator == "tcg" else [])]


@functools.cache  # a host with many processors takes its time to describe them
def _tsc_khz() -> int:
    # Nor has it a timer to calibrate the time stamp counter by; under TCG it is the host's, whose rate the
    # host's kernel tells as bogomips (two per cycle).
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("bogomips"):
            return int(float(line.partition(":")[2]) / 2 * 1000)
    return 1_000_000
