"""Ports for servers that have to be told one: by the time that they listen nobody else has taken it by chance."""

import random
import socket
from pathlib import Path

_FIRST = 20000
_TRIES = 1000


def free(count: int = 1) -> int:
    """The first of so many successive ports that are free, and that the kernel gives nobody who asks for any."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(_TRIES):
        first = random.randrange(_FIRST, end - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
