"""The first process of the user-mode kernel that nfs starts: it makes a server and two clients, and runs checks.

Inside there is no network but between the three. Who speaks to it does so by a serial line: the name of a check in, the
traceback of its failure out, in a line of JSON each, an empty one for success.
"""

import ctypes
import importlib
import json
import os
import subprocess
import sys
import traceback
import tty
from pathlib import Path

from tests.support.nfs import PROGRAMS

HOSTS = ("front", "node")
_MODULES = PROGRAMS / "usr/lib/uml/modules"
_WANTED = ("overlay", "veth", "nfsd", "nfsv3", "nfsv4")
_FINIT_MODULE = 313  # of amd64
_POWER_OFF = 0x4321FEDC  # linux/reboot.h
_PIPES = Path("/run/rpc_pipefs")
EXPORTED = Path("/srv/shared")
# For both, whoever asks as root is root: jails' users own the disks of jobs.
EXPORT = "rw,sync,fsid=0,no_subtree_check,no_root_squash"
_LIBRARIES = f"{PROGRAMS}/usr/lib/x86_64-linux-gnu"

_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: str | Path) -> None:
    path = f"{PROGRAMS}/usr/sbin:{PROGRAMS}/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {"PATH": path, "LD_LIBRARY_PATH": _LIBRARIES}
    subprocess.run(list(map(str, words)), check=True, env=env)


def load_modules() -> None:
    place = _MODULES / os.uname().release
    listed = (line.partition(":") for line in (place / "modules.dep").read_text().splitlines())
    needed = {name: more.split() for name, _, more in listed}
    for wanted in _WANTED:
        (path,) = (name for name in needed if Path(name).name == f"{wanted}.ko")
        for name in (*reversed(needed[path]), path):
            load(place / name)


def load(module: Path) -> None:
    """Load a module of the kernel, unless it is there (finit_module(2))."""
    descriptor = os.open(module, os.O_RDONLY)
    _libc.syscall(_FINIT_MODULE, descriptor, b"", 0)
    os.close(descriptor)


def write_in_memory() -> None:
    """Make all of the host's files a layer, over which is written."""
    run("mount", "-t", "proc", "none", "/proc")
    run("mount", "-t", "tmpfs", "none", "/mnt")
    for name in ("upper", "work", "root"):
        Path("/mnt", name).mkdir()
    run("mount", "-t", "overlay", "none", "-o", "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work", "/mnt/root")
    os.chdir("/mnt/root")
    for name in ("dev", "proc"):
        run("mount", "-n", "--move", f"/{name}", name)
    run("mount", "-n", "--move", ".", "/")
    os.chroot(".")
    for kind, place in (("sysfs", "/sys"), ("tmpfs", "/run")):
        run("mount", "-t", kind, "none", place)


def serve() -> None:
    """Share a file system of ext4 that is empty.

    nfsdcld knows that no client was here before, for whose locks the server would have to wait.
    """
    EXPORTED.mkdir(parents=True)
    run("mkfs.ext4", "-q", "-F", "/dev/ubda")
    run("mount", "/dev/ubda", EXPORTED)
    for name in ("etab", "rmtab"):
        Path("/var/lib/nfs", name).parent.mkdir(parents=True, exist_ok=True)
        Path("/var/lib/nfs", name).touch()
    Path("/etc/exports").touch()
    _PIPES.mkdir()
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    run("mount", "-t", "rpc_pipefs", "none", _PIPES)
    run("nfsdcld", "-p", _PIPES, "-s", "/var/lib/nfs")
    run("exportfs", "-o", EXPORT, f"*:{EXPORTED}")
    serve_nfs_3()
    run("rpc.mountd")
    run("rpc.nfsd", "--lease-time", "10", "--grace-time", "10", "4")


def serve_nfs_3() -> None:
    """Start what the server needs for NFS 3, too, which no host mounts but in a test: rpcbind, which leaves files in
    /run. No client was here before for whose locks it would have to wait.
    """
    Path("/proc/sys/fs/nfs/nlm_grace_period").write_text("1")
    with Path("/etc/passwd").open("a") as users:
        users.write("_rpc:x:65533:65534::/nonexistent:/usr/sbin/nologin\n")
    run("rpcbind")


def join(number: int, name: str) -> None:
    """Make a host with a name and a network of its own, which mounts what is shared."""
    run("ip", "netns", "add", name)
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "addr", "add", f"10.0.{number}.1/24", "dev", name)
    run("ip", "link", "set", name, "up")
    run("ip", "-n", name, "addr", "add", f"10.0.{number}.2/24", "dev", "eth0")
    run("ip", "-n", name, "link", "set", "eth0", "up")
    Path("/srv", name).mkdir()
    mount = mount_words(name, Path("/srv", name), f"vers=4.2,clientaddr=10.0.{number}.2", "nfs4", "/")
    run("unshare", "--uts", "sh", "-c", f"hostname {name} && {' '.join(mount)}")


def mount_words(host: str, place: Path, options: str, kind: str, what: str) -> list[str]:
    """What mounts a directory of the server's for a host, as mount.nfs(8) would."""
    server = f"10.0.{HOSTS.index(host)}.1"
    options += f",addr={server},nosharecache"
    within = ["nsenter", f"--net=/run/netns/{host}"]
    return [*within, "mount", "-i", "-t", kind, "-o", options, f"{server}:{what}", str(place)]


def check(line: str) -> str:
    """Run one in a process of its own; returns what went wrong."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, failure(*line.split()).encode()[-60_000:])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        problem = file.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return problem or (f"{line} ended with status {status}" if status else "")


def failure(name: str, *words: str) -> str:
    module, _, function = name.partition(":")
    try:
        place = Path(HOSTS[0], function)
        Path("/srv", place).mkdir()
        checked = getattr(importlib.import_module(module), function).inside
        checked(*(Path("/srv", host, function) for host in HOSTS), *words)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        return traceback.format_exc()
    return ""


def main() -> None:
    load_modules()
    write_in_memory()
    serve()
    for number, name in enumerate(HOSTS):
        join(number, name)
    os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root")
    line = os.open("/dev/ttyS0", os.O_RDWR)
    tty.setraw(line)
    problem = ""
    while True:
        os.write(line, json.dumps(problem).encode() + b"\n")
        problem = check(heard(line))


def heard(line: int) -> str:
    """The next line that comes in."""
    said = b""
    while not said.endswith(b"\n"):
        said += os.read(line, 1)
    return said.decode().strip()


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - the end of the first process is a panic, which says less
        traceback.print_exc()
    sys.stderr.flush()
    _libc.reboot(_POWER_OFF)
