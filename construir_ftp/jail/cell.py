"""What a program in a jail sees and may use: descriptions only; jail builds it.

    machine(...)  for QEMU: the base image, the job's disk, a place for what the guest changes of its root
    user_mode_machine(...)   the same for a user-mode kernel
    judge_server(...)   for what judges uploads
    reader(...)   for what else reads hostile bytes: decompressors, e2fsck

Every path is the same inside as outside, so that a command line need not be translated.
"""

import os
import sys
from pathlib import Path

import msgspec

from construir_ftp.jail import user_mode

SCRATCH = Path("/var/tmp")  # noqa: S108 - a tmpfs of the jail's own, never the host's
_DEVICES = (Path("/dev/null"), Path("/dev/urandom"))
_KVM = Path("/dev/kvm")
# The loader's cache, and the only part of /etc that programs in /usr can't do without.
_SYSTEM = (Path("/etc/ld.so.cache"), Path("/etc/alternatives"))
# The links of a system that is not the host's.
OTHER_LINKS = {Path("/") / name: f"usr/{name}" for name in ("bin", "lib", "lib64")}
_MIB = 2**20

# QEMU beside the guest's memory: measured 2.3 GiB of addresses under TCG, of them 1 GiB for translated code (as far as
# it is used) and 8 MiB of stack for each of up to 64 threads; and 200 to 400 MiB in use.
_QEMU_ADDRESSES = 4096 * _MIB
_QEMU_MEMORY = 1024 * _MIB
_QEMU_THREADS = 128
_QEMU_FILES = 256
# A user-mode kernel beside its guest's memory: addresses of one process, and memory in use by all, mostly the page
# tables of the guest's processes, each of which is one of the host's.
_UML_ADDRESSES = 1024 * _MIB
_UML_MEMORY = 512 * _MIB
_UML_SCRATCH = 16 * _MIB
_UML_PROCESSES = 4096
# What else a tool needs that unpacks or mends within the limits of uploads: a thread, with its buffers, for each core.
_READER_ADDRESSES_PER_CORE = 128 * _MIB
_READER_THREADS = 64
_READER_FILES = 64
# Python and libmagic beside what a judge may take for unpacking: addresses, and memory in use.
_JUDGE_ADDRESSES = 512 * _MIB
_JUDGE_MEMORY = 64 * _MIB
_SERVER_FILES = 64


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds for what runs in a cell; None is no bound. There never is a core dump.

    The first four hold for each process (setrlimit(2)), `memory_bytes` and `cpus` for all together, where there are
    cgroups; `processes`, which counts threads too, both ways.
    """

    address_bytes: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    cpu_s: int | None = None
    processes: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What there is in a jail besides /usr. Paths are absolute, without "..".

    Writable files are given to the uid that the jail runs under.

    `scratch_bytes` is the size of a /var/tmp of its own, which costs memory as it fills; 0 is none. `proc`: whether
    there is a /proc, which knows of nothing outside. `system` is a directory that has what is to be seen as /usr, in
    place of the host's. `fixed_addresses`: programs are loaded where they want to be (personality(2)). `filter` holds
    instead of the usual system call filter, for what has a narrower one of its own.
    """

    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = _DEVICES
    scratch_bytes: int = 0
    proc: bool = False
    system: Path | None = None
    fixed_addresses: bool = False
    filter: bytes | None = None
    limits: Limits = Limits()


def machine(
    qemu: str,
    *,
    base: tuple[Path, ...],
    disk_bytes: int,
    memory_bytes: int,
    cpus: int,
    changes_bytes: int,
    kvm: bool = False,
) -> Cell:
    """A cell for QEMU with the files of a base image, and `changes_bytes` for changes to the root disk.

    The job's disk comes later, as a descriptor. RLIMIT_FSIZE bounds what QEMU can write to one file, without
    killing it: `disk_bytes` is the size of the largest disk it may be given.
    """
    return Cell(
        readable=(*base, *program(qemu)),
        devices=(*_DEVICES, _KVM) if kvm else _DEVICES,
        scratch_bytes=changes_bytes,
        proc=True,  # where QEMU finds its memory, among its descriptors
        limits=Limits(
            address_bytes=memory_bytes + _QEMU_ADDRESSES,
            file_bytes=max(disk_bytes, changes_bytes),
            open_files=_QEMU_FILES,
            processes=_QEMU_THREADS,
            memory_bytes=memory_bytes + changes_bytes + _QEMU_MEMORY,
            cpus=cpus + 1,
        ),
    )


def user_mode_machine(system: Path, *, disk_bytes: int, memory_bytes: int, changes_bytes: int) -> Cell:
    """A cell for a user-mode kernel out of the tree `system`, and the processes that its guest's are.

    The guest's memory is a file in the jail's scratch place, beside the changes to the root disk. Its disks come as
    descriptors.
    """
    return Cell(
        system=system,
        fixed_addresses=True,  # the kernel would start itself again for that, and may start nothing
        filter=user_mode.outer(),
        scratch_bytes=memory_bytes + changes_bytes + _UML_SCRATCH,
        proc=True,  # where it finds its disks, among its descriptors
        limits=Limits(
            address_bytes=2 * memory_bytes + _UML_ADDRESSES,
            file_bytes=max(disk_bytes, memory_bytes, changes_bytes),
            open_files=2 * _UML_PROCESSES,
            processes=_UML_PROCESSES,
            memory_bytes=memory_bytes + changes_bytes + _UML_MEMORY,
            cpus=1,
        ),
    )


def judge_server(*, judges: int, memory_bytes: int, readable: tuple[Path, ...]) -> Cell:
    """A cell for a judge server and so many judges at once, each of which needs `memory_bytes` for unpacking.

    They are handed what they read, and may write nothing. Half a processor is left to whoever receives uploads, of
    several. Each judge bounds its processor time for itself: their server
    lives as long as whoever has it.
    """
    return Cell(
        readable=readable,
        limits=Limits(
            address_bytes=memory_bytes + _JUDGE_ADDRESSES,
            file_bytes=0,
            open_files=_SERVER_FILES,
            processes=1 + judges,
            memory_bytes=judges * (memory_bytes + _JUDGE_MEMORY),
            cpus=max(1.0, len(os.sched_getaffinity(0)) - 0.5),
        ),
    )


def reader(*, memory_bytes: int, cpu_s: float, writable: Path | None = None, readable: tuple[Path, ...] = ()) -> Cell:
    """A cell for a program that reads hostile bytes from its standard input, or mends the file `writable`.

    It writes to its standard output, a pipe, and to `writable`, which can't grow. It may use all cores, for `cpu_s`
    seconds each.
    """
    cores = len(os.sched_getaffinity(0))
    return Cell(
        readable=readable,
        writable=(writable,) if writable else (),
        limits=Limits(
            address_bytes=memory_bytes + cores * _READER_ADDRESSES_PER_CORE,
            file_bytes=writable.stat().st_size if writable else 0,
            open_files=_READER_FILES,
            cpu_s=max(1, int(cpu_s * cores)),
            processes=_READER_THREADS + cores,
            memory_bytes=memory_bytes + cores * _READER_ADDRESSES_PER_CORE,
        ),
    )


def writer(target: Path, *, memory_bytes: int, cpu_s: float, most_bytes: int) -> Cell:
    """Like reader, for a program that makes the file `target`, which is there already and empty."""
    walls = reader(memory_bytes=memory_bytes, cpu_s=cpu_s, writable=target)
    return msgspec.structs.replace(walls, limits=msgspec.structs.replace(walls.limits, file_bytes=most_bytes))


def python() -> tuple[Path, ...]:
    """What this Python needs to run a module of this package, wherever they are: for the cell of a judge server."""
    libraries = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    places: tuple[str | Path, ...] = (
        sys.prefix,
        sys.base_prefix,
        *libraries,
        Path(sys.executable).resolve(),
        Path(__file__).parents[1],
    )
    return _beside_the_system(tuple(Path(place) for place in places))


def program(name: str) -> tuple[Path, ...]:
    """What is to be seen of a program that is not in /usr: itself, and what was installed with it (bin/..)."""
    path = Path(name)
    if not path.is_absolute():
        return ()
    place = path.parent.parent if path.parent.name in ("bin", "sbin") else path
    # What is in /bin or /sbin every cell has.
    return _beside_the_system((place,)) if place != Path("/") else ()


def system() -> tuple[tuple[Path, ...], dict[Path, str]]:
    """What every cell has: directories and files to be seen, and the links of a merged /usr (/bin -> usr/bin)."""
    tops = [Path("/") / name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")]
    links = {top: str(top.readlink()) for top in tops if top.is_symlink()}
    seen = (Path("/usr"), *(top for top in tops if top.is_dir() and top not in links))
    return (*seen, *(path for path in _SYSTEM if path.exists())), links


def _beside_the_system(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Those that no other one, nor /usr, contains."""
    kept: list[Path] = [Path("/usr")]
    for path in sorted(dict.fromkeys(paths), key=lambda path: len(path.parts)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept[1:])
