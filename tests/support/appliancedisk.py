"""The appliance's disk in a QEMU as anyone would start it: a serial console, a network behind it, a port in front."""

import ftplib
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support import ports
from tests.support.selfboot import UEFI

# A whole Debian boots, under emulation: up to its first screen it takes some 230 s of processor time, of which a busy
# host gives it a tenth.
BOOT_S = 3600
# In which its network knows the computer that it is emulated on, and gives it its own address.
_ADDRESS = "10.0.2.15"
_OUTSIDE = "10.0.2.2"
_LOOK_S = 10


class Console:
    """What it shows on its serial port."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire, self._read, self.said = wire, 0, ""

    def expect(self, pattern: str, patience_s: float = BOOT_S) -> "re.Match[str]":
        """Wait until it has shown something that was not waited for before."""
        deadline = time.monotonic() + patience_s
        while not (found := re.compile(pattern).search(self.said, self._read)):
            ready, _, _ = select.select([self._wire], [], [], max(0, deadline - time.monotonic()))
            block = self._wire.recv(65536) if ready else b""
            assert block, f"it has not shown {pattern!r}: {self.said[-3000:]}"
            self.said += block.decode(errors="replace")
        self._read = found.end()
        return found

    def type(self, text: str) -> None:
        """Press keys."""
        self._wire.sendall(text.encode())

    def answer(self, command: str) -> str:
        """What a command prints, of somebody who has logged in."""
        # What is typed is shown as well, and is not to be taken for the answer.
        self.type(f"echo be''gun; {command}; echo en''ded\r")
        return self.expect(r"begun\r\n((?:.|\n)*?)ended")[1].strip()

    def log_in(self, password: str) -> None:
        """As the administrator."""
        self.type("\r")
        self.expect("login: ")
        self.type("root\r")
        self.expect("Password: ")
        self.type(f"{password}\r")
        self.expect("# ")


class Computer:
    """One that is switched on; `port` leads to its port 21."""

    def __init__(self, qemu: "subprocess.Popen[bytes]", console: Console, port: int) -> None:
        self._qemu, self.console, self.port = qemu, console, port

    def cut_power(self) -> None:
        """End it at once."""
        self._qemu.kill()
        self._qemu.wait()


class Active(ftplib.FTP):
    """A client to which data connections come: from the computer's network to this one."""

    def makeport(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(BOOT_S)
        high, low = divmod(listener.getsockname()[1], 256)
        self.sendcmd(f"PORT {_OUTSIDE.replace('.', ',')},{high},{low}")
        return listener


@contextmanager
def _session(computer: Computer, name: str, password: str) -> Iterator[Active]:
    with Active(timeout=BOOT_S) as ftp:
        ftp.connect("127.0.0.1", computer.port)
        ftp.set_pasv(False)
        ftp.login(name, password)
        yield ftp


def send(computer: Computer, password: str, upload: Path) -> str:
    """Send a job as the first contributor; the reply."""
    with _session(computer, "first", password) as ftp, upload.open("rb") as file:
        return ftp.storbinary(f"STOR /queue/{upload.name}", file)


def output(computer: Computer, job: str) -> list[str]:
    """What a job has printed, as anyone can read it once it is done; waits for that."""
    deadline_s = time.monotonic() + BOOT_S
    while True:
        said: list[str] = []
        with _session(computer, "anonymous", "nobody@") as ftp:
            if job in ftp.nlst("/done"):
                ftp.retrlines(f"RETR /done/{job}/output.log", said.append)
                return said
        assert time.monotonic() < deadline_s, f"{job} is not done: {computer.console.answer('construir status')}"
        time.sleep(_LOOK_S)


def wait_until_shown(console: Console, waiting: int = 0) -> None:
    """Until the screen shows its address, what runs, and so many jobs that wait."""
    console.expect(rf"ftp://{re.escape(_ADDRESS)}/")
    console.expect("the appliance runs, in parts: ftp, runner")
    console.expect(rf"queue +{waiting}\b")
    console.expect("Enter: log in")


def log_in(console: Console, password: str) -> None:
    """As the administrator, with the password that the screen has shown; then the doors are open."""
    console.log_in(password)
    console.answer("until systemctl --quiet is-active construir-ftp; do sleep 1; done")


@contextmanager
def switched_on(disk: Path, stick: Path, *, uefi: bool = False) -> Iterator[Computer]:
    """Start a computer with this disk (qcow2), which it may change, and a stick that it may read; off at the end."""
    port = ports.free()
    ours, theirs = socket.socketpair()
    argv: list[Any] = ["qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-smp", "2", "-m", "4096M", "-nodefaults"]
    argv += ["-display", "none", *(["-bios", UEFI] if uefi else [])]
    argv += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:21", "-device", "e1000,netdev=net"]
    argv += [
        "-chardev",
        f"socket,id=serial,fd={theirs.fileno()}",
        "-serial",
        "chardev:serial",
        "-drive",
        f"file={disk},format=qcow2,if=virtio,cache=unsafe",
        "-drive",
        f"file={stick},format=raw,if=virtio,readonly=on",
    ]
    with ExitStack() as stack:
        stack.callback(ours.close)
        with theirs:
            qemu = stack.enter_context(subprocess.Popen(argv, pass_fds=[theirs.fileno()]))
        stack.callback(qemu.kill)
        yield Computer(qemu, Console(ours), port)
