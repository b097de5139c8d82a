"""A spool says which form it has, and is left alone by a program that doesn't know that form."""

from pathlib import Path

import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import spool_format
from construir_ftp.jobs.spool import Spool


def tree(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}


def test_a_new_spool_says_which_form_it_has(tmp_path: Path) -> None:
    Spool.prepare(tmp_path / "spool")
    assert (tmp_path / "spool" / "format").read_text() == f"{spool_format.CURRENT}\n"


def test_a_spool_of_before_is_taken_and_says_so_from_then_on(tmp_path: Path) -> None:
    Spool.prepare(tmp_path)
    (tmp_path / "format").unlink()
    Spool.find(tmp_path)
    assert not (tmp_path / "format").exists()
    Spool.prepare(tmp_path)
    assert (tmp_path / "format").read_text() == f"{spool_format.CURRENT}\n"


def test_a_newer_spool_is_refused_with_a_word_and_left_as_it_is(tmp_path: Path) -> None:
    Spool.prepare(tmp_path)
    (tmp_path / "format").write_text(f"{spool_format.CURRENT + 1}\n")
    (tmp_path / "trash").rmdir()
    before = tree(tmp_path)
    for use in (Spool.prepare, Spool.find):
        with pytest.raises(ConstruirError, match="a newer Construir has made; this one knows 1 at most"):
            use(tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("text", ["", "one", "-1", "9" * 5000, "\x00"])
def test_a_form_that_is_no_number_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    Spool.prepare(tmp_path)
    (tmp_path / "format").write_text(text)
    with pytest.raises(ConstruirError, match="expected a number such as 1") as caught:
        Spool.find(tmp_path)
    assert len(str(caught.value)) < 300
