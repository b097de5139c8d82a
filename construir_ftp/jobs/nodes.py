"""Nodes: whoever runs jobs of a spool. What each says of itself, and which of them live.

    <spool>/nodes/NAME/lock          held by the node as long as it lives
                       alive         its directory in running/, and a number that it raises every few seconds
                       offer.json    what jobs can have there
                       runner.json   what it does (see inquiry)
                       drained       there while the operator wants it to take no more jobs; says why
    <spool>/nodes.json               which nodes live, by the word of the front, which holds the spool's lock

No time of a file is looked at: it is another host's clock. Nothing here moves a job.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from construir_ftp import files, schema
from construir_ftp.errors import ConstruirError, RefusedError, UsageError
from construir_ftp.jobs import ipc, modes, places
from construir_ftp.jobs.request import FILE, Terms, Wishes

DIRECTORY, JUDGED = "nodes", "nodes.json"
# Whoever takes jobs back from silent nodes holds them under this name meanwhile.
FRONT = "front"
_RESERVED = (places.LOCAL, FRONT)
_LOOK_S = 0.2

_T = TypeVar("_T")


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """alive."""

    holding: str
    count: int
    load: float = 0.0


class Machines(msgspec.Struct, frozen=True, kw_only=True):
    """What machines of one base image are on a node. `accelerator` is empty as long as it isn't known."""

    digest: str
    architecture: str
    accelerator: str
    least_memory_bytes: int = 0


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """offer.json: what jobs can have on a node. `signs_as` is what it calls the appliance in what it signs."""

    version: int = 1
    program: str
    architecture: str
    processors: int
    memory_bytes: int
    slots: int
    default_base: str
    signs_as: str = ""
    bases: dict[str, Machines]
    terms: Terms


def check_name(name: str) -> None:
    """Raises UsageError where no node can be called that."""
    if not places.is_node_name(name) or name in _RESERVED:
        raise UsageError(
            f"{name!a}: a node's name is 1 to 63 small letters, digits and -, and begins with a letter; "
            f"{' and '.join(_RESERVED)} are taken"
        )


def place(spool: Path, name: str) -> Path:
    """The directory of a node, made where it is missing."""
    path = spool / DIRECTORY / name
    path.mkdir(mode=modes.EVERYONES_DIRECTORY, parents=True, exist_ok=True)
    return path


def names(spool: Path) -> list[str]:
    """All that have ever said anything, and were not forgotten."""
    with suppress(FileNotFoundError):
        return sorted(path.name for path in (spool / DIRECTORY).iterdir() if places.is_node_name(path.name))
    return []


@contextmanager
def hold(spool: Path, name: str, patience_s: float = 0.0) -> Iterator[None]:
    """Be the node of that name. Raises ConstruirError where another one is, and still is after so long.

    The lock of one whose host has died ends when the file server has noticed that.
    """
    lock, deadline_s = place(spool, name) / "lock", time.monotonic() + patience_s
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(ipc.hold(lock))
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline_s:
                    raise ConstruirError(
                        f"another node {name} works on {spool}; stop it, or choose another name with --name"
                    ) from error
            time.sleep(_LOOK_S)
        yield


# -- what a node says --------------------------------------------------------------------------------------------


def offer(spool: Path, name: str, offered: Offered) -> None:
    """Replace offer.json; what a full disk costs is that others are told old news."""
    with suppress(OSError):
        files.replace(place(spool, name) / "offer.json", msgspec.json.encode(offered))


def withdraw(spool: Path, name: str) -> None:
    """Offer nothing any more: nobody is promised what is there."""
    with suppress(OSError):
        (spool / DIRECTORY / name / "offer.json").unlink()


def beat(spool: Path, name: str, pulse: Pulse) -> None:
    """Say that the node lives. Raises OSError."""
    files.replace(place(spool, name) / "alive", msgspec.json.encode(pulse))


def leave(spool: Path, name: str) -> None:
    """Say that it ends: nobody need wait for it. What it has offered stays known, for it may come back."""
    with suppress(OSError):
        (spool / DIRECTORY / name / "alive").unlink()


def forget(spool: Path, name: str) -> None:
    """Remove all that is known of it."""
    with suppress(OSError):
        shutil.rmtree(spool / DIRECTORY / name)


def pulse(spool: Path, name: str) -> Pulse | None:
    """What it has said last; None where it has left, or never said anything."""
    return read(spool / DIRECTORY / name / "alive", Pulse)


def offered(spool: Path, name: str) -> Offered | None:
    """What jobs can have there, by its own word."""
    return read(spool / DIRECTORY / name / "offer.json", Offered)


def read(path: Path, kind: type[_T]) -> _T | None:
    """What a node, or the front, has written; None where there is nothing, or nothing that can be read."""
    try:
        return schema.from_json(files.read_anew(path), kind)
    except (OSError, msgspec.MsgspecError):
        return None


def why_not(offered: Offered, wanted: Wishes, image_bytes: int) -> str:
    """Why a job with an image of that size, which asks for that, can't run on a node; empty if it can."""
    try:
        offered.terms.check(wanted, image_bytes)
    except RefusedError as error:
        return str(error)
    name = wanted.base_name(offered.default_base)
    if name not in offered.bases:
        return f"{FILE}: base: there is no base image {name!a} there"
    machines = offered.bases[name]
    return why_another_kind(name, machines.architecture, machines.accelerator, wanted) or why_too_little(
        name, machines.least_memory_bytes, wanted
    )


def why_another_kind(base: str, architecture: str, accelerator: str, wanted: Wishes) -> str:
    """Why machines of a base image are not of the kind that is asked for; empty if they are, or if it isn't known."""
    if wanted.architecture not in ("", architecture):
        return f"{FILE}: architecture: base image {base} is of {architecture}"
    if accelerator and wanted.accelerator not in ("", accelerator):
        return f"{FILE}: accelerator: machines of {base} run under {accelerator} here"
    return ""


def why_too_little(base: str, least_bytes: int, wanted: Wishes) -> str:
    """Why a machine of a base image does not come up with the memory that is asked for; empty if it does."""
    if wanted.memory is None or wanted.memory >= least_bytes:
        return ""
    return f"{FILE}: memory: a machine of {base} needs {least_bytes >> 20} MiB at least to come up"


def suits_any_other(spool: Path, wanted: Wishes, image_bytes: int) -> bool:
    """Whether a node that lives, is not the appliance's own, and takes jobs, can run such a job."""
    there = (name for name in living(spool) if name != places.LOCAL and not why_drained(spool, name))
    return any(suits(spool, name, wanted, image_bytes) for name in there)


def suits(spool: Path, name: str, wanted: Wishes, image_bytes: int) -> bool:
    """Whether a node can run such a job, by its own word."""
    found = offered(spool, name)
    return found is not None and not (
        why_not(found, wanted, image_bytes)
        or has_another_image(wanted.base_name(found.default_base), found, offered(spool, places.LOCAL))
    )


def has_another_image(base: str, there: Offered, front: Offered | None) -> bool:
    """Whether a node's base image of a name is another one than the front promises by it: no job is run on that."""
    if front is None or base not in front.bases or base not in there.bases:
        return False
    return there.bases[base].digest != front.bases[base].digest


# -- what the front says -----------------------------------------------------------------------------------------


def judge(spool: Path, living: list[str]) -> None:
    """Have everyone know which nodes live beside the appliance's own."""
    with suppress(OSError):
        files.replace(spool / JUDGED, msgspec.json.encode(living))


def living(spool: Path) -> list[str]:
    """The nodes that live, the appliance's own first; none while there is no front, which would know."""
    if not ipc.is_held(spool / "lock"):
        return []
    return [places.LOCAL, *(read(spool / JUDGED, list[str]) or [])]


def other_names(spool: Path) -> list[str]:
    """The nodes that live, and call the appliance otherwise than its own does in what they sign; a line each."""
    return list(filter(None, (other_name(spool, name, offered(spool, name)) for name in living(spool))))


def other_name(spool: Path, name: str, said: Offered | None) -> str:
    """That a node, which says that, calls the appliance otherwise than its own does; empty if not, or not known."""
    own = offered(spool, places.LOCAL)
    if not (own and own.signs_as and said and said.signs_as) or said.signs_as == own.signs_as:
        return ""
    return (
        f"node {name} signs results as {said.signs_as}, and the appliance as {own.signs_as}: set trust.name to the"
        " same on both"
    )


# -- what the operator says --------------------------------------------------------------------------------------


def drain(spool: Path, name: str, why: str) -> None:
    """Have it take no more jobs; on return that survives a power cut. Raises ConstruirError if there is none."""
    _demand(spool, name)
    files.replace_durably(place(spool, name) / "drained", why.encode(), modes.EVERYONES)


def resume(spool: Path, name: str) -> None:
    """Have it take jobs again. Raises ConstruirError if there is none."""
    _demand(spool, name)
    with suppress(FileNotFoundError):
        (spool / DIRECTORY / name / "drained").unlink()
    files.fsync(spool / DIRECTORY / name)


def why_drained(spool: Path, name: str) -> str:
    """Why it is to take no more jobs; empty if it is to take them."""
    with suppress(OSError):
        return files.read_anew(spool / DIRECTORY / name / "drained").decode(errors="replace") or "by the operator"
    return ""


def _demand(spool: Path, name: str) -> None:
    if name not in names(spool):
        there = ", ".join(names(spool)) or "none"
        raise ConstruirError(f"there is no node {name!a}; there are: {there}")


def load() -> float:
    """What the host has to do, as its kernel counts it over a minute."""
    return os.getloadavg()[0]
