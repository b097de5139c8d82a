"""Another client, in a process of its own, that nothing else holds up: how long each of its NOOPs takes.

python -m tests.bench.ftp_bystander PORT     as anyone, until the end of its standard input; prints milliseconds
"""

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

PAUSE_MS = 1


@contextmanager
def watching(port: int) -> Iterator[list[float]]:
    """While the context lasts it asks; afterwards the list has how long each answer took, in milliseconds."""
    argv = [sys.executable, "-m", __name__, str(port)]
    taken: list[float] = []
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "logged in\n"
        try:
            yield taken
        finally:
            said, _ = process.communicate()
    taken += map(float, said.split())


def ask(port: int) -> None:
    """Log in, and ask until told to stop."""
    taken = []
    with socket.create_connection(("127.0.0.1", port)) as session, session.makefile("rb") as replies:
        session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _read(replies)
        for line in (b"USER anonymous", b"PASS nobody@"):
            session.sendall(line + b"\r\n")
            code = _read(replies)
        assert code == b"230", code
        print("logged in", flush=True)
        while not select.select([sys.stdin], [], [], PAUSE_MS / 1000)[0]:
            begun = time.monotonic()
            session.sendall(b"NOOP\r\n")
            assert _read(replies) == b"200"
            taken.append((time.monotonic() - begun) * 1000)
    print(*(f"{ms:.3f}" for ms in taken))


def _read(replies: IO[bytes]) -> bytes:
    """The code of a reply; proftpd's greeting and others have several lines."""
    line = replies.readline()
    while line[3:4] == b"-":
        line = replies.readline()
    return line[:3]


if __name__ == "__main__":
    ask(int(sys.argv[1]))
