"""Names that mean the same file on every system: what a result may put onto a contributor's computer.

A job chose the names, and who fetches it may sit at Windows, macOS or Linux. What is refused is refused everywhere, so
that a result is the same wherever it is fetched to. Nothing here touches a file.
"""

import re
import unicodedata

# Microsoft, "Naming Files, Paths, and Namespaces": devices, whatever follows behind a dot, spaces before it ignored.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL
)
_RESERVED = frozenset('<>:"/\\|?*')
# Linux (NAME_MAX), macOS and Windows alike.
_MOST_BYTES = 255


def why_not(name: str) -> str:
    """Why no file should be called that, in words that end a sentence; empty if one can be. `name` has no directory."""
    if not name or name in (".", ".."):
        return "leads elsewhere"
    if not name.isprintable():
        return "has characters that can't be printed"
    if reserved := sorted(_RESERVED.intersection(name)):
        return f"has a {reserved[0]}, which means something else on other systems"
    if name.endswith((" ", ".")):
        return "ends in a space or a dot, which Windows drops"
    if _DEVICE.fullmatch(name):
        return "is a device on Windows"
    return f"is longer than {_MOST_BYTES} bytes" if len(name.encode(errors="replace")) > _MOST_BYTES else ""


def why_no_path(path: str) -> str:
    """The same of a path below a directory, its parts divided by slashes."""
    return next(filter(None, map(why_not, path.split("/"))), "")


def folded(path: str) -> str:
    """What two paths have in common that mean one file on Windows or macOS."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
