"""What dpkg leaves out of packages is what the contributors' page says."""

import re

from tests.support.places import PROJECT

PATTERN = re.compile(r"^path-(exclude|include)=(\S+)$", re.MULTILINE)


def test_page_of_dependencies_names_all_that_is_left_out_of_packages_that_jobs_have_added() -> None:
    page = (PROJECT / "docs/dependencies.md").read_text()
    patterns = PATTERN.findall((PROJECT / "base-image/dpkg.cfg").read_text())
    assert ("exclude", "/usr/share/man/*.gz") in patterns
    assert [pattern for kind, pattern in patterns if kind == "exclude" and f"`{pattern}`" not in page] == []


def test_nothing_but_what_people_read_is_left_out_of_them() -> None:
    patterns = PATTERN.findall((PROJECT / "base-image/dpkg.cfg").read_text())
    places = {pattern.split("/")[3] for kind, pattern in patterns if kind == "exclude"}
    assert places == {"doc", "info", "lintian", "man"}
