"""docs/compatibility.md, written from what tests/server/test_compatibility.py has seen."""

import platform
from datetime import UTC, datetime
from typing import NamedTuple

from tests.support.image_tools import IMAGE_TOOLS, Tool
from tests.support.places import PROJECT
from tests.support.stacks import FEATURES, STACKS, Stack

PAGE = PROJECT / "docs" / "compatibility.md"

_HEAD = """# Compatibility

For contributors who ask whether their FTP client works. It lists the clients and the image tools
that the tests have run, their versions, and what each did. `pytest --all --write-compatibility
tests/server/test_compatibility.py` writes this page; nobody edits it.

Each client sent a job and was accepted, sent a file that is no image and showed why it was refused,
continued an upload at the byte where it had been cut, and fetched a file of a result. A client that
speaks TLS did all of it once more over TLS.
"""


_TOOLS = """
## Images

Each of these programs made an image, which was sent. Those that pack were given one by mke2fs.
btrfs and xfs are taken where `gate.filesystems` names them.

| tool | its images are | package and version |
|---|---|---|
"""


class Seen(NamedTuple):
    """What was seen to work: its version."""

    version: str


def cells(stack: Stack) -> str:
    """The columns of a client that say what it does."""
    return f"| {stack.name} | {' | '.join(stack.lacks.get(feature, 'yes') for feature in FEATURES)} |"


def tool_cells(tool: Tool) -> str:
    """The columns of a tool that say whether its images are taken."""
    return f"| {tool.name} | {f'refused, `{tool.refusal}` helps' if tool.refusal else 'accepted'} |"


def write(seen: dict[str, Seen]) -> None:
    """Write the page; every client and every tool must have been seen."""
    missing = [row.name for row in (*STACKS, *IMAGE_TOOLS) if row.name not in seen]
    assert not missing, f"not run, so the page is left as it was: {missing}"
    rows = [f"{cells(stack)} {seen[stack.name].version} |" for stack in STACKS]
    table = [f"| client | {' | '.join(FEATURES)} | version |", "|---" * (len(FEATURES) + 2) + "|", *rows]
    tools = "".join(f"{tool_cells(tool)} {tool.package} {seen[tool.name].version} |\n" for tool in IMAGE_TOOLS)
    when = f"{datetime.now(UTC):%Y-%m-%d}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    PAGE.write_text(f"{_HEAD}\nLast run: {when}.\n\n" + "\n".join(table) + f"\n{_TOOLS}{tools}")
