"""The libraries that modules import are what setup.cfg has pip install, by what commands advise."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from configparser import ConfigParser
from importlib.metadata import distributions, packages_distributions, requires

import pytest

from construir_ftp import errors
from construir_ftp.errors import MissingLibraryError
from construir_ftp.intake import judge
from tests.support.places import PROJECT

_PACKAGE = PROJECT / "construir_ftp"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(lines: Iterable[str]) -> set[str]:
    """What requirements name; their conditions are not looked at."""
    return {normal(found[0]) for line in lines if (found := _NAME.match(line.strip()))}


def with_their_own(names: set[str]) -> set[str]:
    """These packages, and what they bring themselves."""
    installed = {normal(found.name) for found in distributions()}
    return names.union(*(packages(requires(name) or []) for name in names & installed))


def brought_by(advice: str) -> set[str]:
    """What pip installs where this is done: Construir's own needs, and those of the extras that are named."""
    setup = ConfigParser(interpolation=None)
    setup.read(PROJECT / "setup.cfg")
    extras = re.search(r"pip install '\.\[([a-z,]+)\]'", advice)
    assert extras, advice
    named = (setup["options.extras_require"][extra] for extra in extras[1].split(","))
    lists = [setup["options"]["install_requires"], *named]
    return with_their_own({name for listed in lists for name in packages(listed.splitlines())})


def libraries() -> dict[str, str]:
    """Each library that is imported anywhere in the package, and a module that does."""
    found = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found.update({name.partition(".")[0]: str(path.relative_to(PROJECT)) for name in names})
    # Python 3.14 has compression itself.
    ours = {*sys.stdlib_module_names, "construir_ftp", "compression"}
    return {name: path for name, path in found.items() if name not in ours}


def without(library: str, script: str) -> str:
    """What a script prints where a library is missing."""
    argv = [sys.executable, "-c", f"import sys\nsys.modules[{library!r}] = None\n{script}"]
    said = subprocess.run(argv, env={**os.environ, "COLUMNS": "300"}, capture_output=True, text=True, check=True)
    return said.stdout


_CHECK = """
from construir_ftp.appliance import check
from construir_ftp.config import Config
print(*(f"{finding.state}: {finding.text}; {finding.remedy}" for finding in check._program(Config())))
"""
_HELP = "from construir_ftp.cli.main import construir\nconstruir(['--help'])"


def test_what_is_advised_brings_every_library_that_any_part_loads() -> None:
    needed, known = libraries(), packages_distributions()
    assert {"waitress", "argon2", "msgspec", "jinja2"} <= set(needed)
    told = {
        "check": without("waitress", _CHECK),
        "the help": without("argon2", _HELP),
        "a command": str(MissingLibraryError("construir serve", "waitress")),
        "a judge": judge._UNNAMED,
    }
    assert told["check"].startswith("problem: construir_ftp.site.")
    for who, advice in told.items():
        brought = brought_by(advice)
        lacks = {name: path for name, path in needed.items() if not brought & set(map(normal, known.get(name, [])))}
        assert lacks == {}, who


def test_an_extra_that_older_instructions_name_is_still_there() -> None:
    assert brought_by("pip install '.[web]'") <= brought_by("pip install '.[appliance,web]'")


@pytest.mark.parametrize("script", ["prepare", "package"])
def test_deploy_installs_what_is_advised(script: str) -> None:
    text = (PROJECT / "deploy" / script).read_text()
    (extra,) = re.findall(r"\[([a-z]+)\]", errors.INSTALL)
    assert f"extras={extra}\n" in text or f'["extras_require"]["{extra}"]]' in text
