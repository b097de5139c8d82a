"""A guest that says anything on the console that somebody looks at, and that is logged."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from construir_ftp.machine.capped_log import CappedLog
from construir_ftp.machine.terminal import Strainer, Typist
from tests.fuzz.targets import Attempt, Settle

_HEAD_BYTES, _TAIL_BYTES, _MARK_BYTES = 64, 64, 60
# As terminals read it: control characters in the midst of a sequence are obeyed, and change nothing of it.
_WITHIN = rb"[\0-\x06\x08-\x17\x19\x1c-\x1f\x7f]*"
_MORE_THAN_DRAWS = re.compile(
    rb"\x1b" + _WITHIN + rb"(?:[P\]X^_%]|\[(?:[0-?]|" + _WITHIN[:-1] + rb")*i)|\xc2[\x80-\x9f]"
)


def _pieces(data: bytes) -> list[bytes]:
    size = 1 + (data or b"\0")[0]
    return [data[at : at + size] for at in range(1, len(data), size)]


def _show(pieces: list[bytes]) -> None:
    strainer, whole, typist = Strainer(), Strainer(), Typist()
    shown = b"".join(strainer.strain(piece) for piece in pieces)
    # What an unfinished string held is left out either way.
    assert shown == whole.strain(b"".join(pieces)), "it depends on how it was cut"
    assert not _MORE_THAN_DRAWS.search(shown), f"more than draws: {shown!r}"
    typist.take(b"root\nvagrant\nls\n")
    assert sum(len(typist.hear(piece)) for piece in pieces) <= len(b"root\nvagrant\nls\n")


@contextmanager
def target() -> Iterator[tuple[Attempt, Settle]]:
    """The first byte says how it is cut."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "console.log"

        def attempt(data: bytes) -> None:
            pieces = _pieces(data)
            _show(pieces)
            with closing(CappedLog(path, _HEAD_BYTES, _TAIL_BYTES)) as log:
                for piece in pieces:
                    log.write(piece)
            kept, said = path.read_bytes(), b"".join(pieces)
            path.unlink()
            assert len(kept) <= _HEAD_BYTES + _TAIL_BYTES + _MARK_BYTES
            assert kept[:_HEAD_BYTES] == said[:_HEAD_BYTES]
            assert kept.endswith(said[-_TAIL_BYTES:])

        yield attempt, lambda: None
