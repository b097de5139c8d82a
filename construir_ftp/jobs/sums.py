"""SHA256SUMS: the digests of a result's files, in the format of sha256sum(1)."""

import re

from construir_ftp.errors import DamagedError, one_line

LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SHOWN_CHARACTERS = 200


def render(sums: dict[str, str]) -> bytes:
    """The file's content, of digests by the names of the files."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def parse(content: bytes) -> dict[str, str]:
    """The digests by the names of the files. Raises DamagedError unless this is what `render` would write."""
    found: dict[str, str] = {}
    for line in content.decode(errors="replace").split("\n")[:-1]:
        match = LINE.fullmatch(line)
        if match is None or match[2] in found:
            raise DamagedError(f"SHA256SUMS has a line that makes no sense: {one_line(line)[:_SHOWN_CHARACTERS]!r}")
        found[match[2]] = match[1]
    if render(found) != content:
        raise DamagedError("SHA256SUMS is not in the format of sha256sum")
    return found
