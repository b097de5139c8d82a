"""What a root disk from elsewhere needs to be a worker's: base-image's overlay, and what its hooks do to a tree.

debugfs(8) writes it, in a jail, into the file system as it is; its exit status says nothing, so that all is read back.
"""

import re
import shutil
from pathlib import Path

from construir_ftp import mend
from construir_ftp.errors import ConstruirError
from construir_ftp.image import recipe, rootdisk

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
    mend.run(root, "debugfs", "-w", "-f", str(script.resolve()), readable=(scratch.resolve(),))
    shutil.rmtree(scratch)
    mend.check(root)
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
