"""Promises of formats: whoever adds a row has told all that name, install or recognise an outer format."""

import pytest

from construir_ftp.appliance import check
from construir_ftp.config import Config
from construir_ftp.formats import FORMATS, Format
from construir_ftp.ftp.vfs import readme
from construir_ftp.jobs import names
from tests.support.images import CODECS
from tests.support.places import PROJECT

COMPRESSED = [row for row in FORMATS.values() if row.suffix]


@pytest.mark.parametrize("row", COMPRESSED, ids=lambda row: row.name)
def test_a_format_is_known_wherever_formats_are(row: Format) -> None:
    assert names.slug(f"hello.img{row.suffix}") == names.slug(f"hello{row.suffix.upper()}") == "hello"
    assert check.TOOLS[row.pack_argv[0]] == row.package
    assert row.package in (PROJECT / "deploy/packages").read_text().split()
    assert row.name in readme.text(Config(), 21)
    assert row.name in (PROJECT / "README.md").read_text()
    assert row.pack_argv[0] == row.unpack_argv[0]


def test_tests_try_every_format() -> None:
    assert set(CODECS) == set(FORMATS)
