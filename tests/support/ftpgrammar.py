"""Hostile FTP: commands made by chance out of a grammar, and what a reply has to look like whatever it answers."""

import random
import re
from collections.abc import Callable

from construir_ftp.ftp.commands.table import Table
from construir_ftp.ftp.lines import is_http

CRLF = b"\r\n"
RESULT = "20261122T104102Z-7f3a-hello"

# Ends the session, costs a tenth of a second of all processors, or forgets who is logged in: not too often.
_SCARCE = ("QUIT", "REIN", "USER", "PASS", "AUTH")
_UNKNOWN = (
    *("", "X", "MAIL", "ADAT", "CCC", "CONF", "ENC", "MIC", "LPRT", "LPSV", "HOST", "LANG", "CLNT", "MFCT", "MFF"),
    *(
        "RANG",
        "HASH",
        "XCRC",
        "XSHA",
        "COMB",
        "AVBL",
        "SMNT",
        "ACCT",
        "STOU",
        "MFMT",
        "GET",
        "HTTP/1.1",
        "EHLO",
        "SSH-2.0",
    ),
    *("SITE EXEC", "SITE SYMLINK", "SITE INDEX", "SITE UMASK", "SITE CPFR", "SITE MKDIR", "SITE ABOR", "SITE STAT"),
    *("XXABOR", "\u017ftor", "\ufb06or", "RETR\u00a0", "STOR\t"),
)
OFFERED = Table().offered
VERBS = (*sorted(OFFERED), *_UNKNOWN)
_OPENING = ("EPSV", "EPSV", "PASV", "PORT", "EPRT")
_TRANSFER = ("STOR", "STOR", "STOR", "APPE", "RETR", "RETR", "LIST", "MLSD", "NLST")

_LONG = (200, 255, 256, 1023, 2030, 2043, 2048, 2049, 5000, 20_000)
# What makes trouble in text of any kind: Telnet, ends of lines, UTF-8, terminals, formats, shells, paths, numbers.
PIECES = (
    *(b"", b" ", b"  ", b"\t", b"-", b"|", b"\\", b'"', b'""', b"'", b"*", b"[a-z]", b"?", b"{a,b}", b";", b"\x7f"),
    *(b"\xff\xf4\xff\xf2", b"\xff\xff", b"\xff\xfd\x18", b"\xf2", b"\0", b"a\0b", b"\r", b"\n", b"a\rb", b"\r\0"),
    *(b"x\n226 Accepted as job 1", b"x\r226 Done.", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9", b"\xfe\xff"),
    *("\u202e".encode(), "\u2028".encode(), "\u0085".encode(), "\ufb06".encode(), b"\x1b]0;x\x07", b"\x1b[2J", b"\x08"),
    *(b"%s%n%x%p", b"%(x)s", b"%a%", b"{0.__class__}", b"{}", b"$(id)", b"`id`", b"; ls", b"|id", b"' OR 1=1 --"),
    *(b"../" * 30, b"/.." * 9, b"/" * 300, b"a/" * 500, b"..", b".", b"...", b"~", b"~root", b"//etc/passwd"),
    *(b"/etc/passwd", b"/proc/self/environ", b"/dev/zero", b"C:\\con", b"file:///etc/passwd", b"http://127.0.0.1/"),
    *(
        b"-1",
        b"0",
        b"1",
        b"+5",
        b"1_0",
        b"0x10",
        b"1e9",
        b"NaN",
        "\u0663".encode(),
        b"9" * 20,
        b"9" * 1900,
        b"-" + b"9" * 99,
    ),
)
_PATHS = (
    *(
        ".",
        "..",
        "/",
        "/done",
        "/running",
        "/layers",
        "/queue",
        "/queue/",
        "/incoming",
        "/trash",
        "/lock",
        "/users.toml",
    ),
    *(
        f"/done/{RESULT}",
        f"/done/{RESULT}/output.log",
        f"/done/{RESULT}/large.img",
        f"/running/{RESULT}",
        "/status.json",
    ),
    *("README.txt", "x.img", "x.img.zst", ".in.x.img", "x.img.filepart", "tmp.x", "x.changes", "/queue/d/x.img", "d"),
    *(
        "/queue/x.img",
        "/queue/y.img",
        "/queue/.in.y.img",
        "/queue/z.img.filepart",
        "/queue/d",
        "/queue/.x",
        "-la",
        "-R /",
    ),
)
_UPLOADS = ("x.img", "/queue/y.img", "z.img.filepart", ".in.y.img", "tmp.x", "d/x.img", "x.changes", "../queue/x.img")
_DOWNLOADS = (
    f"/done/{RESULT}/large.img",
    f"/done/{RESULT}/large.img",
    f"/done/{RESULT}/output.log",
    "/status.json",
    "/",
)
_OFFSETS = ("0", "1", "5", "100", "299999", "300000", "300001", "99999999999", str(2**63), str(2**64), "9" * 500)
_NAMES = ("alice", "bob", "anonymous", "ftp", "Alice", "root", "mallory", "a" * 33, "")
_TIMES = ("20260101000000", "19000101000000", "99999999999999", "2026", "20261332250000.5")


def _ports(chance: random.Random, host: str, port: int, wrong: float = 0.5) -> str:
    numbers = [*host.split("."), str(port // 256), str(port % 256)]
    if chance.random() < wrong:
        numbers[chance.randrange(6)] = chance.choice(("0", "1", "127", "255", "256", "-1", "x", "", "65536", "9" * 30))
    return ",".join(numbers)


def _extended(chance: random.Random, host: str, port: int) -> str:
    number = chance.choice(("1", "1", "1", "1", "2", "3", ""))
    host = chance.choice(
        (host, host, host, "127.0.0.1", "192.0.2.1", "::1", "::ffff:127.0.0.1", "fe80::1%lo", "localhost", "")
    )
    at = chance.choice((str(port), str(port), str(port), "0", "21", "1023", "65535", "65536", "-5", "x"))
    sign = chance.choice("|||||!@\t1")
    return sign.join(("", number, host, at, ""))


def _usual(chance: random.Random, verb: str, host: str, port: int) -> str:
    """An argument that makes sense, or nearly."""
    path = chance.choice(_PATHS)
    special: dict[str, Callable[[], str]] = {
        "USER": lambda: chance.choice(_NAMES),
        "PASS": lambda: chance.choice(("", "guest@", "correct horse", "x" * 300)),
        "PORT": lambda: _ports(chance, host, port),
        "EPRT": lambda: _extended(chance, host, port),
        "EPSV": lambda: chance.choice(("", "", "", "", "", "1", "2", "3", "x")),
        "REST": lambda: chance.choice(_OFFSETS),
        "ALLO": lambda: chance.choice(_OFFSETS),
        "TYPE": lambda: chance.choice(("I", "I", "I", "I", "A", "L8", "L 7", "E", "A N", "i")),
        "MODE": lambda: chance.choice("SBCZ"),
        "STRU": lambda: chance.choice("FRP"),
        "AUTH": lambda: chance.choice(("TLS", "SSL", "TLS-P", "GSSAPI")),
        "PBSZ": lambda: chance.choice(("0", "99999999999")),
        "PROT": lambda: chance.choice("CPSE"),
        "OPTS": lambda: chance.choice(
            ("UTF8 ON", "MLST type;size;", "MLST " + "type;" * 300, "MLST", "HASH SHA-1", "REST")
        ),
        "HELP": lambda: chance.choice(("", "STOR", "SITE", "SITE HELP", "XX")),
        "MFMT": lambda: f"{chance.choice(_TIMES)} {path}",
        "SITE CHMOD": lambda: f"{chance.choice(('644', '7777', 'u+x', ''))} {path}",
        "SITE UTIME": lambda: f"{chance.choice(_TIMES)} {path} UTC",
        "SITE STATUS": lambda: chance.choice((RESULT, "x", "../x", path)),
    }
    if verb in special:
        return special[verb]()
    return "" if OFFERED.get(verb, {}).get("arg") is False else path


def _hostile(chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return chance.choice((b"A", b"/", b"\xff", b" ")) * chance.choice(_LONG)
    return b"".join(chance.choices(PIECES, k=chance.randrange(1, 4)))


def command(chance: random.Random, host: str, port: int) -> bytes:
    """One command, without its end of line. `host` and `port`: where its client listens for data connections."""
    verb = chance.choice(VERBS)
    if verb in _SCARCE and chance.random() < 0.8:
        verb = "NOOP"
    argument = _usual(chance, verb, host, port).encode() if chance.random() < 0.65 else _hostile(chance)
    line = verb.encode() + b" " * (bool(argument) or chance.random() < 0.1) + argument
    line = line.lower() if chance.random() < 0.1 else line
    if chance.random() < 0.05:
        place = chance.randrange(len(line) + 1)
        line = line[:place] + _hostile(chance) + line[place:]
    return line.replace(b"\n", b"\r")


def burst(chance: random.Random, host: str, port: int) -> list[bytes]:
    """Some commands that are sent at once; half of the time a transfer, with others before, within and after it."""
    lines = [command(chance, host, port) for _ in range(chance.choice((1, 1, 1, 2, 3, 8)))]
    if chance.random() < 0.5:
        return lines
    opening, verb = chance.choice(_OPENING), chance.choice(_TRANSFER)
    begin = _ports(chance, host, port, 0.1) if opening == "PORT" else f"|1|{host}|{port}|" if opening == "EPRT" else ""
    path = chance.choice(_UPLOADS if verb in ("STOR", "APPE") else _DOWNLOADS)
    transfer = [f"{opening} {begin}".strip().encode(), f"{verb} {path}".encode()]
    if chance.random() < 0.3:
        transfer.insert(chance.randrange(2), f"REST {chance.choice(_OFFSETS)}".encode())
    if chance.random() < 0.2:
        transfer.insert(chance.randrange(1, 3), command(chance, host, port))
    if chance.random() < 0.2:
        transfer.append(
            chance.choice((b"ABOR", b"\xff\xf4\xff\xf2ABOR", b"STAT", b"QUIT", b"REIN", b"PROT C", b"USER bob"))
        )
    place = chance.randrange(len(lines) + 1)
    return [*lines[:place], *transfer, *lines[place:]] if chance.random() < 0.4 else transfer


def may_end_session(line: bytes) -> bool:
    """Whether the session may be over after this command; pyftpdlib goes by the end of an unknown verb."""
    return is_http(line) or any(word in line.upper() for word in (b"QUIT", b"PASS", b"AUTH"))


def first_reply(unread: bytes) -> tuple[str, bytes] | None:
    """The first reply of `unread`, whole, and what comes after it; None if it is not whole yet.

    Fails if it isn't one: RFC 959, 4.2, and UTF-8 (RFC 2640), nothing in it that ends a line but CR LF.
    """
    first, ended, rest = unread.partition(CRLF)
    text = [_line(first)] if ended else []
    assert not text or re.fullmatch(r"[1-5][0-9]{2}[ -].*", text[0], re.DOTALL), f"no reply: {first!r}"
    while ended and text[0][3] == "-" and not (len(text) > 1 and text[-1].startswith(f"{text[0][:3]} ")):
        line, ended, rest = rest.partition(CRLF)
        if ended:
            text.append(_line(line))
            is_last = text[-1].startswith(f"{text[0][:3]} ")
            assert is_last or not re.match(r"[0-9]{3}[ -]", text[-1]), f"looks like another reply: {line!r}"
    return ("\n".join(text), rest) if ended else None


def _line(line: bytes) -> str:
    assert not set(line) & set(b"\r\n\0"), f"more than a line: {line!r}"
    return line.decode()
