"""SECURITY.md names tests that are there."""

import re

from tests.support.places import PROJECT


def test_each_defence_names_tests_that_are_there() -> None:
    table = (PROJECT / "SECURITY.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
    named = [re.findall(r"[a-z_/]+\.py", row.rsplit("|", 2)[1]) for row in table.splitlines() if row.startswith("| ")]
    proofs = named[1:]  # the first row is the heading
    assert all(proofs), "each row has a test"
    missing = [path for paths in proofs for path in paths if not (PROJECT / "tests" / path).is_file()]
    assert missing == []
