"""A contributor with the clients people have: a home that holds the password, a desk with a job on it, and the
table of command lines.
"""

import functools
import hashlib
import re
import shlex
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

from construir_ftp import process
from tests.support import images
from tests.support.ftpclient import LONG_S, House, held_check, users_text, wait_until
from tests.support.places import PROJECT

# No client's file of passwords can hold a space for sure.
NAME, PASSWORD = "alice", "battery-staple"
FILE, CHANGES = "greet.img.zst", "greet_1_all.changes"
MIB = 2**20

_PAGE = PROJECT / "docs" / "clients.md"
_ROW = re.compile(r"^\| (\w+) \| `([^`]+)` \|(?: `([^`]+)`)?", re.MULTILINE)


@functools.cache
def command_lines() -> dict[str, tuple[str, str]]:
    """docs/clients.md's table: by client, what sends a job, and what continues it, if anything does."""
    return {client: (sends, continues) for client, sends, continues in _ROW.findall(_PAGE.read_text())}


@functools.cache
def _obscured() -> str:
    """The password as rclone wants it."""
    return images.run("rclone", "obscure", PASSWORD).strip()


@functools.cache
def large_job() -> bytes:
    """A job of 20 MiB that can't be packed any smaller: it is not sent in a moment."""
    image = images.claiming(images.image("ext2", MIB), 20 * MIB)
    return images.pack("zstd", image[:MIB] + images.noise(19 * MIB))


class Contributor:
    """Knows a server, and has a directory `desk` to work in. The job there is called FILE, and listed in CHANGES."""

    def __init__(self, house: House, place: Path) -> None:
        self._house = house
        self._host, self._port = house.server.address
        self.desk, self.home = place / "desk", place / "home"
        self.desk.mkdir()
        self.home.mkdir()
        house.users.path.write_text(users_text(NAME, password=PASSWORD))
        self._environment = process.environment(
            HOME=str(self.home),
            USER=NAME,
            RCLONE_FTP_PASS=_obscured(),
            RCLONE_RETRIES="1",
            RCLONE_LOW_LEVEL_RETRIES="1",
        )
        for path, text in self._passwords(self.home).items():
            path.write_text(text)
            path.chmod(0o600)

    def _passwords(self, home: Path) -> dict[Path, str]:
        address = f"{self._host}:{self._port}"
        return {
            home / ".netrc": f"machine {self._host} login {NAME} password {PASSWORD}\n",
            self.desk / "login.cfg": f"host {self._host}\nuser {NAME}\npass {PASSWORD}\n",
            home / ".dput.cf": f"[construir]\nfqdn = {address}\nincoming = /queue\nlogin = {NAME}\n"
            "allow_unsigned_uploads = 1\n",
            home / ".dupload.conf": "package config;\n$preupload{changes} = [];\n"
            f"$cfg{{construir}} = {{fqdn => '{address}', incoming => '/queue', login => '{NAME}', dinstall_runs => 1,"
            f" passwordcmd => 'echo {PASSWORD}'}};\n",
        }

    def lay_out(self, content: bytes, name: str = FILE) -> None:
        """Put a job on the desk, and the list that Debian's clients send with it (deb-changes(5))."""
        (self.desk / name).write_bytes(content)
        (self.desk / CHANGES).write_text(
            "Format: 1.8\nDate: Sun, 22 Nov 2026 10:41:02 +0000\nSource: greet\nArchitecture: all\nVersion: 1\n"
            "Distribution: unstable\nMaintainer: Alice <alice@example.org>\nDescription:\n greet - a job\n"
            "Changes:\n greet (1) unstable; urgency=low\n"
            f"Checksums-Sha1:\n {hashlib.sha1(content).hexdigest()} {len(content)} {name}\n"
            f"Checksums-Sha256:\n {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
            f"Files:\n {hashlib.md5(content).hexdigest()} {len(content)} misc optional {name}\n"
        )

    def words(self, line: str) -> list[str]:
        """A command line of the table's, as it is for this server."""
        return shlex.split(line.replace("server", self._host).replace("2121", str(self._port)))

    def run(self, line: str, typed: str = f"{PASSWORD}\n") -> tuple[int, str]:
        """Run a command line, and type what it asks for; its exit status and all it said."""
        with self.start(line) as client:
            said, _ = client.communicate(typed.encode(), timeout=LONG_S)
        return client.returncode, said.decode(errors="replace")

    def start(self, line: str) -> "subprocess.Popen[bytes]":
        """Start a command line, in a session without a terminal, so that it asks on its standard input."""
        return subprocess.Popen(
            self.words(line),
            cwd=self.desk,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def cut(self, line: str, how: signal.Signals = signal.SIGKILL) -> dict[str, int]:
        """Run a command line that sends the large job, and end it on the way; name and size of what is kept of it."""
        uploads = self._house.spool.state("incoming")
        with ExitStack() as stack:
            # Held before anything is sent: a judge that is at work already would read all of it.
            with held_check():
                client = stack.enter_context(self.start(line))
                assert client.stdin is not None
                client.stdin.write(f"{PASSWORD}\n".encode())
                client.stdin.flush()
                wait_until(lambda: any(path.stat().st_size > MIB for path in uploads.glob("*/upload")), "a part comes")
                client.send_signal(how)
            client.communicate(timeout=LONG_S)
        wait_until(self._house.kept, "it is kept")
        return self._house.kept()
