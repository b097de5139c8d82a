"""What a client says first over TLS: the application protocols that it names (ALPN, RFC 7301).

OpenSSL, as Python has it, goes on with a client that names none of the server's. A browser that is led to this port
instead of a web server names HTTP (the ALPACA attack), and must not get as far as a reply. Nothing is kept of a hello.
"""

from collections.abc import Iterator

# The header of a record, and the most that one holds (RFC 8446, 5.1).
_HEADER_BYTES = 5
MOST_BYTES = _HEADER_BYTES + (1 << 14)

_HANDSHAKE, _CLIENT_HELLO, _ALPN = b"\x16", b"\x01", b"\0\x10"
# Of the handshake's type and length, the version and the random.
_BEFORE_SESSION_BYTES = 4 + 2 + 32

# What an endpoint says that speaks none of them: a fatal alert, no_application_protocol (RFC 7301, 3.2).
NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\0\x02\x02\x78"


def protocols(begun: bytes) -> list[bytes] | None:
    """The protocols that a ClientHello names; none if it names none, or isn't one. None if more of it is to come.

    One that is spread over several records is not looked into.
    """
    if not begun.startswith(_HANDSHAKE):
        return []
    size_bytes = int.from_bytes(begun[3:_HEADER_BYTES])
    if _HEADER_BYTES + size_bytes > MOST_BYTES:
        return []
    if len(begun) < _HEADER_BYTES + size_bytes:
        return None
    hello = begun[_HEADER_BYTES : _HEADER_BYTES + size_bytes]
    return [] if not hello.startswith(_CLIENT_HELLO) else list(_named(hello[_BEFORE_SESSION_BYTES:]))


def _named(rest: bytes) -> Iterator[bytes]:
    for width in (1, 2, 1):  # the session, the ciphers, the compressions
        _, rest = _vector(rest, width)
    extensions, _ = _vector(rest, 2)
    while extensions:
        kind, (body, extensions) = extensions[:2], _vector(extensions[2:], 2)
        if kind == _ALPN:
            names, _ = _vector(body, 2)
            while names:
                name, names = _vector(names, 1)
                yield name


def _vector(data: bytes, width: int) -> tuple[bytes, bytes]:
    """What a length of so many bytes at the beginning counts, and what is behind it. Less if there is less."""
    end = width + int.from_bytes(data[:width])
    return data[width:end], data[end:]
