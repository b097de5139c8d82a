"""How far an installation is, by what dpkg says of it in its machine.

What is printed there is the packages' own doing: nothing of it is passed on but numbers, and names that were known.
"""

import re
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

# So long a line is new to whoever reads it, and telling it costs nothing that counts.
_EVERY_S = 3.0
_STEP = re.compile(r"^(Unpacking|Setting up) ([a-z0-9][a-z0-9+.-]*)(?=[ :])", re.MULTILINE)


def words(said: str, packages: Collection[str]) -> str:
    """What dpkg has come to, which does two steps for each of these packages; empty before the first."""
    steps = dict.fromkeys(step for step in _STEP.findall(said) if step[1] in packages)
    if not steps:
        return ""
    verb, name = next(reversed(steps))
    return f"step {len(steps)} of {2 * len(packages)}, {verb.lower()} {name}"


@contextmanager
def told(log: Path, packages: Collection[str], tell: Callable[[str], None]) -> Iterator[None]:
    """While the context lasts, tell of it now and then, in a thread of its own, as far as it has changed."""
    over = threading.Event()

    def look() -> None:
        before = ""
        while not over.wait(_EVERY_S):
            try:
                now = words(log.read_bytes().decode(errors="replace"), packages)
            except OSError:
                continue
            if now not in ("", before):
                before = now
                tell(now)

    thread = threading.Thread(target=look, name="progress")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
