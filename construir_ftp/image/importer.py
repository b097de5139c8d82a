"""A pre-made Debian image becomes a base image: its kernel is taken out, what makes it a worker is put in.

Nothing is mounted, and nothing of the image runs outside of a machine: drivers, Perl and its libraries for the
initramfs are read out of its file system, and whether it does what a worker has to, a job in a machine of it tells.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp import architecture
from construir_ftp.config import MachineSection
from construir_ftp.diskimage import e2fsprogs
from construir_ftp.errors import ConstruirError, JobError
from construir_ftp.image import baseimage, drivers, foreign, gc, initramfs, kernel, recipe, rootdisk, versions
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.image.rootdisk import RootDisk

_RELEASE = re.compile(r"vmlinuz-([A-Za-z0-9][A-Za-z0-9.+~_-]*)")


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a root disk says of itself."""

    suite: str
    architecture: str
    release: str
    packages: dict[str, str]
    sources: list[str]
    date: datetime


def adopt(
    images: Path,
    file: Path,
    name: str,
    approve: Callable[[BaseImage], None],
    measure: Callable[[BaseImage], int] = lambda base: 0,
    most_bytes: int = MachineSection().scratch,
    kept: Collection[str] = (),
) -> BaseImage:
    """Make of the image `file` (see premade) the live base image of a name, if `approve` has nothing against it.
    `measure` says how many bytes of memory a machine of it needs; of older versions the one before stays, and those
    whose digests are in `kept`.

    What is changed on a root disk is kept in memory, so a root of more than `most_bytes` is made smaller.
    Raises ConstruirError, saying what is wrong with it; then nothing has changed.
    """
    with versions.draft(images, name) as draft:
        root = draft / baseimage.ROOT
        foreign.take_root(file, root)
        e2fsprogs.check(root)
        facts = _examine(root, file)
        e2fsprogs.drop_journal(root)
        if root.stat().st_size > most_bytes:
            _make_smaller(root, most_bytes)
        (draft / "additions").mkdir()
        add(root, draft / "additions")
        _take_out(root, facts, draft)
        _write_manifest(draft, name, facts, file)
        baseimage.note_least_memory(draft, name, measure)
        base = versions.publish(images, name, draft, approve)
    baseimage.note_proof(base)  # its digests were taken a moment ago
    gc.trim(images, name, kept)
    return base


def _make_smaller(root: Path, most_bytes: int) -> None:
    try:
        e2fsprogs.shrink(root, most_bytes)
    except JobError as error:
        raise ConstruirError(
            f"the root disk doesn't fit into machine.scratch ({most_bytes >> 20} MiB): {error}; make that larger"
        ) from error


# -- what it is ------------------------------------------------------------------------------------------------


def _examine(root: Path, file: Path) -> _Facts:
    with rootdisk.opened(root) as disk:
        system = dict(line.split("=", 1) for line in disk.text("/etc/os-release").splitlines() if "=" in line)
        packages = _packages(disk.text("/var/lib/dpkg/status"))
        if "debian" not in f"{system.get('ID', '')} {system.get('ID_LIKE', '')}" or "dpkg" not in packages:
            raise ConstruirError(f"{file}: no Debian on its root partition (/etc/os-release, /var/lib/dpkg/status)")
        status = disk.find("/var/lib/dpkg/status")
        if (found := packages["dpkg"][1]) != architecture.native():
            raise ConstruirError(f"{file}: a Debian for {found!a}; one for {architecture.native()} can be imported")
        return _Facts(
            suite=re.sub(r"[^a-z0-9.-]", "", system.get("VERSION_CODENAME", "")) or "debian",
            architecture=found,
            release=_release(disk, file),
            packages={name: version for name, (version, _) in packages.items()},
            sources=[line for line in disk.text("/etc/apt/sources.list").splitlines() if line and line[0] != "#"],
            date=datetime.fromtimestamp(status.mtime_ns // 10**9 if status else 0, UTC),
        )


def _release(disk: RootDisk, file: Path) -> str:
    """The newest of the kernels that have their drivers beside them."""
    found = [match[1] for name in disk.names("/boot") if (match := _RELEASE.fullmatch(name))]
    whole = [release for release in found if disk.find(f"/lib/modules/{release}/modules.dep")]
    if not whole:
        raise ConstruirError(
            f"{file}: no kernel with its drivers on its root partition (/boot/vmlinuz-*, /lib/modules)"
        )
    return max(whole, key=lambda release: [int(part) for part in re.findall(r"\d+", release)])


def _packages(status: str) -> dict[str, tuple[str, str]]:
    """Of every installed package its version and architecture (deb-control(5))."""
    found = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[fields.get("Package", "")] = (fields.get("Version", ""), fields.get("Architecture", ""))
    return found


# -- what is taken out of it -------------------------------------------------------------------------------------


def _take_out(root: Path, facts: _Facts, draft: Path) -> None:
    tree, packed = draft / "initramfs", draft / "vmlinuz"
    with rootdisk.opened(root) as disk:
        packed.write_bytes(disk.read(f"/boot/vmlinuz-{facts.release}"))
        kernel.extract(packed, draft / baseimage.KERNEL)
        packed.unlink()
        files = initramfs.collect(disk) | {"/init": (recipe.source() / "overlay" / "root" / "runjob").read_bytes()}
        found = drivers.collect(disk, facts.release, recipe.modules(facts.architecture))
    files |= {f"/modules/{name}": content for name, content in found.items()}
    files["/modules/order"] = "".join(f"{name}\n" for name in found).encode()
    for path, content in files.items():
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755)
    initramfs.pack(tree, draft / baseimage.INITRD, int(facts.date.timestamp()))
    shutil.rmtree(tree)


def _write_manifest(draft: Path, name: str, facts: _Facts, file: Path) -> None:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    manifest = baseimage.Manifest(
        name=name,
        suite=facts.suite,
        architecture=facts.architecture,
        include=[],
        recipe="",
        kernel_release=facts.release,
        created=datetime.now(UTC),
        parts={part: baseimage.measure(draft / part) for part in baseimage.PARTS},
        packages=facts.packages,
        date=facts.date,
        sources=facts.sources,
        imported=f"sha256:{digest}",
    )
    (draft / baseimage.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))


# -- what is added -----------------------------------------------------------------------------------------------

# What a root disk from elsewhere needs to be a worker's: base-image's overlay, and what its hooks do to a tree.
# debugfs(8) writes it, in a jail, into the file system as it is. Its exit status says nothing: so all is read back.

# What is the disk's own business: nobody reads it in the worker.
_NOT_ADDED = ("etc/fstab",)
_DIRECTORIES = ("job", "deps")
# runjob writes them anew for every job, in memory (hooks/30-trim).
_LINKS = {f"etc/{name}": f"/run/{name}" for name in ("machine-id", "hostname", "hosts")}
_SECRETS = ("/var/lib/systemd/random-seed", "/var/lib/dbus/machine-id")
_SHADOW = "etc/shadow"
_MODES = {_SHADOW: 0o640}


def add(root: Path, scratch: Path) -> None:
    """Add it to the root file system `root`; `scratch` is a new directory. Raises ConstruirError if that can't be."""
    with rootdisk.opened(root) as disk:
        wanted = _wanted(disk)
        secrets = [*_SECRETS, *(f"/etc/ssh/{name}" for name in disk.names("/etc/ssh") if name.startswith("ssh_host_"))]
    commands = [f"rm {path}" for path in secrets]
    commands += [line for path in _DIRECTORIES for line in _in_directory(path, "mkdir {0}")]
    commands += [line for path, to in _LINKS.items() for line in _in_directory(path, "rm {0}", f"symlink {{0}} {to}")]
    for number, (path, (mode, content)) in enumerate(wanted.items()):
        source = scratch / str(number)
        source.write_bytes(content)
        commands += _in_directory(
            path, "rm {0}", f'write "{source.resolve()}" {{0}}', f"sif {{0}} mode 0{0o100000 | mode:o}"
        )
    script = scratch / "commands"
    script.write_text("".join(f"{command}\n" for command in commands))
    for file in (scratch, *scratch.iterdir()):
        file.chmod(0o755 if file == scratch else 0o644)
    e2fsprogs.run(root, "debugfs", "-w", "-f", str(script.resolve()), readable=(scratch.resolve(),))
    shutil.rmtree(scratch)
    e2fsprogs.check(root)
    _prove(root, wanted)


def _wanted(disk: rootdisk.RootDisk) -> dict[str, tuple[int, bytes]]:
    """Path without its / -> mode and content of every file to be added."""
    overlay = recipe.source() / "overlay"
    files = [path for path in sorted(overlay.rglob("*")) if path.is_file()]
    found = {
        str(path.relative_to(overlay)): (0o755 if path.stat().st_mode & 0o100 else 0o644, path.read_bytes())
        for path in files
    }
    shadow = (_MODES[_SHADOW], _with_password(disk.read(f"/{_SHADOW}")))
    return {path: what for path, what in found.items() if path not in _NOT_ADDED} | {_SHADOW: shadow}


def _with_password(shadow: bytes) -> bytes:
    """The password file with root's password, as it is in every worker (hooks/10-root-password)."""
    hook = (recipe.source() / "hooks" / "10-root-password").read_text()
    known = re.search(r"^hash='([^']*)'$", hook, re.MULTILINE)
    assert known, "the hook has the hash"
    return re.sub(rb"^root:[^:\n]*:", lambda _: f"root:{known[1]}:".encode(), shadow, count=1, flags=re.MULTILINE)


def _in_directory(path: str, *commands: str) -> list[str]:
    """Commands about a name, which they are given as {0}, in its directory, which is made as far as it is missing."""
    *above, name = path.split("/")
    steps = [command for part in above for command in (f"mkdir {part}", f"cd {part}")]
    return ["cd /", *steps, *(command.format(name) for command in commands)]


def _prove(root: Path, wanted: dict[str, tuple[int, bytes]]) -> None:
    with rootdisk.opened(root) as disk:
        for path, (mode, content) in wanted.items():
            inode = disk.find(f"/{path}")
            if inode is None or inode.mode & 0o777 != mode or disk.read(f"/{path}") != content:
                raise ConstruirError(f"/{path} can't be added to the root disk; is there room on it?")
        for path in _DIRECTORIES:
            if disk.find(f"/{path}") is None:
                raise ConstruirError(f"the directory /{path} can't be added to the root disk; is there room on it?")
