"""JSON of strangers: one kind of error, whatever is wrong; and patterns that mean all of a text."""

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import construir_ftp
from construir_ftp import schema
from construir_ftp.intake import verdict
from construir_ftp.jobs import outputs
from construir_ftp.jobs.result import Result

PACKAGE = Path(construir_ftp.__file__).parent
WRONG = [
    b"",
    b"\xff",
    b"[" * 100_000,
    b'{"a":' + b"[" * 100_000,
    b'{"type":"\xff"}',
    b'{"status":"\\ud800"}',
    b"[1e999]",
]


@pytest.mark.parametrize("kind", [Result, dict, verdict.Answer, outputs.Found | outputs.End, list[Result]])
@pytest.mark.parametrize("content", WRONG, ids=lambda content: repr(content[:8]))
def test_json_that_makes_no_sense_is_one_kind_of_error(content: bytes, kind: Any) -> None:
    with pytest.raises(msgspec.MsgspecError):
        schema.from_json(content, kind)


def test_no_other_place_reads_json() -> None:
    readers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("msgspec.json.decode", "json.loads", "json.load")
    }
    assert readers == {"schema.py"}


def test_no_pattern_lets_the_end_of_a_line_pass() -> None:
    # "$" fits before it, too; msgspec searches, and does not match all of a text.
    loose = {
        f"{path.name}: {found}"
        for path in PACKAGE.rglob("*.py")
        for found in re.findall(r"""pattern=r?f?"[^"]*"(?=\))""", path.read_text())
        if not found.endswith('\\Z"')
    }
    assert loose == set()


@pytest.mark.parametrize("key", ["codec", "filesystem", "upload_sha256", "objection", "needs"])
def test_judge_says_no_more_than_a_line(key: str) -> None:
    usual = {"codec": "zstd", "filesystem": "ext4", "upload_sha256": "ab" * 32, "objection": "no", "needs": "sh"}
    said = {"type": "job", "upload_bytes": 1, "image_bytes": 1, **usual}
    assert verdict.decode_answer(msgspec.json.encode(said))
    with pytest.raises(msgspec.MsgspecError):
        verdict.decode_answer(msgspec.json.encode({**said, key: f"{usual[key]}\n"}))
