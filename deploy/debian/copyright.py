"""Write debian/copyright for the libraries in a directory: `copyright.py SITE_PACKAGES LICENSE`.

The form is that of machine-readable copyright files (debian.org, copyright-format 1.0). What a library says of itself
is in its .dist-info directory (packaging.python.org, core metadata); its licence files come whole.
"""

import sys
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

_HEAD = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: construir

Files: *
Copyright: the authors of Construir
License: MIT
{text}"""
_PLACE = "usr/lib/construir/lib/python/site-packages"
_ENTRY = """
Files: {files}
Copyright: {holder}
License: {name}-license
 {summary}
{text}"""


def main(packages: Path, license_file: Path) -> None:
    """Print it."""
    print(_HEAD.format(text=_indented(license_file.read_text())))
    for info in sorted(packages.glob("*.dist-info")):
        print(_entry(info))


def _entry(info: Path) -> str:
    metadata = HeaderParser().parsestr((info / "METADATA").read_text())
    texts = [path.read_text() for path in _license_files(info)]
    if not texts:
        sys.exit(f"{info.name}: no licence file")
    return _ENTRY.format(
        name=metadata["Name"],
        files=" ".join(f"{_PLACE}/{name}" for name in _names(info)),
        holder=_holder(metadata),
        summary=f"{metadata['Name']} {metadata['Version']}, {_license(metadata)}",
        text=_indented("\n".join(texts)),
    )


def _names(info: Path) -> list[str]:
    """What it has put beside others; without a record, as sources have none, what is called like it."""
    record = info / "RECORD"
    if not record.exists():
        return [f"{info.name.partition('-')[0]}*"]
    paths = [line.partition(",")[0].split("/") for line in record.read_text().splitlines()]
    tops = {path[0] if len(path) == 1 else f"{path[0]}/*" for path in paths if not path[0].endswith(".data")}
    return sorted(tops)


def _license_files(info: Path) -> Iterator[Path]:
    wanted = ("LICENSE", "LICENCE", "COPYING", "NOTICE")
    return (path for path in sorted(info.rglob("*")) if path.is_file() and path.name.upper().startswith(wanted))


def _holder(metadata: Message) -> str:
    """Who is named as author, on a line; the licence text below has the rest."""
    named = metadata["Author"] or metadata["Author-email"] or metadata["Maintainer"] or metadata["Maintainer-email"]
    return " ".join((named or f"the authors of {metadata['Name']}").split())


def _license(metadata: Message) -> str:
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if "License" in text]
    short = metadata["License-Expression"] or ", ".join(classifiers) or metadata["License"] or "its own licence"
    return " ".join(short.splitlines()[0].split())


def _indented(text: str) -> str:
    return "\n".join(f" {line.rstrip()}" if line.strip() else " ." for line in text.strip().splitlines())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
