"""The version that the program tells is the last release that the changelog has."""

import re

from construir_ftp import __version__
from tests.support.places import PROJECT


def test_what_is_not_released_calls_itself_by_the_release_before_it() -> None:
    releases = re.findall(r"^## (\S+) \((\S.*)\)$", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    (coming, state), (released, _) = releases[:2]
    assert __version__ == (released if state == "not released" else coming)
    if state == "not released":
        told = " ".join((PROJECT / "docs/operator.md").read_text().split())
        assert f"until {coming} is released, `construir --version`" in told
        assert f"web pages say {released}, and a package's version is {released}+git" in told
