"""What waitress bounds by itself no further than for all clients together: how many connections one address has, and
how long it takes over a request.

This computer itself may have as many as it likes: a web server before ours speaks for everybody.
"""

import ipaddress
import socket
import time
from typing import Any

from waitress.channel import HTTPChannel

MOST_OF_AN_ADDRESS = 20
# From the first byte of a request to its last.
_REQUEST_S = 30.0
_HERE = ("127.0.0.1/32", "::1/128")


def network(address: str) -> str:
    """Whose an address is: an IPv6 one is of whoever has the /64 (RFC 6177)."""
    known = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped:
            return f"{known.ipv4_mapped}/32"
        if not known.is_loopback:
            return str(ipaddress.ip_network((known, 64), strict=False))
    return str(ipaddress.ip_network(known))


class Connection(HTTPChannel):  # type: ignore[misc] # waitress is untyped
    """A connection that ends where its address has too many, or its request takes too long."""

    request_s = _REQUEST_S

    def __init__(self, server: Any, sock: socket.socket, peer: tuple[str, int], *rest: Any, **more: Any) -> None:
        self.network = network(peer[0])
        self._begun_s = 0.0
        super().__init__(server, sock, peer, *rest, **more)
        siblings = [one for one in server.active_channels.values() if one.network == self.network]
        if self.network not in _HERE and len(siblings) > MOST_OF_AN_ADDRESS:
            self.handle_close()

    def received(self, data: bytes) -> bool:
        """Note when a request begins."""
        if self.request is None:
            self._begun_s = time.monotonic()
        return bool(super().received(data))

    def readable(self) -> bool:
        """Asked at each turn of the loop, a second apart at most."""
        if self.request is not None and time.monotonic() - self._begun_s > self.request_s:
            self.will_close = True
        return bool(super().readable())
