"""Promises of the layout: imports point one way, each library has its one place, nothing of a build machine leaks in.

The import rule stands here, once; ARCHITECTURE.md shows it. A room that is not in it fails, so that whoever adds one
says where it stands.
"""

import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from construir_ftp import process
from construir_ftp.errors import CommandError
from tests.support.places import PROJECT

PACKAGE = PROJECT / "construir_ftp"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The modules that any room may import, and that import no room.
GROUND = words("errors units schema home surroundings config files locks process formats architecture")

# The import rule: what each room may import beside itself and the ground.
RULE: dict[str, frozenset[str]] = {
    "jail": words(""),
    "jobs": words(""),
    "diskimage": words("jail"),
    "image": words("diskimage jail"),
    "machine": words("image jobs jail"),
    "layers": words("machine image diskimage jobs jail"),
    "intake": words("layers image diskimage jobs jail"),
    "pack": words("intake diskimage jobs"),
    "trust": words("jobs"),
    "ftp": words("trust intake layers jobs"),
    "runner": words("trust pack intake layers machine image diskimage jobs jail"),
    "site": words("trust layers image jobs"),
    "news": words("jobs"),
    "slurm": words("jobs"),
    "appliance": words("slurm news site trust ftp pack intake layers machine image jobs jail"),
    "client": words("trust pack jobs diskimage"),
    "cli": words(
        "client appliance slurm news site runner trust ftp pack intake layers machine image diskimage jobs jail"
    ),
}

# Neither may reach the other, by whatever way: they meet in the spool.
FTP_SIDE = "ftp"
RUNNER_SIDE = "runner"

# The only rooms, or modules of the ground, that may import a library, so that it can be replaced, distrusted or jailed
# in one place.
ONLY_IN = {
    "pyftpdlib": frozenset({FTP_SIDE}),
    "magic": frozenset({"intake"}),
    "schedule": frozenset({"appliance"}),
    "sh": frozenset({"process"}),
    "elftools": frozenset({"image"}),
    "jinja2": frozenset({"site"}),
    "prometheus_client": frozenset({"site"}),
    "waitress": frozenset({"site"}),
    "multiprocessing": frozenset[str](),
    "pty": frozenset[str](),
    "asyncio": frozenset[str](),
}

# What starts a program. Names such as subprocess.PIPE may be used anywhere, with process.spawn.
STARTERS = {
    "subprocess": {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"}
    | {f"{verb}{suffix}" for verb in ("exec", "spawn") for suffix in words("l le lp lpe v ve vp vpe")},
}

# A judge is a fork of its server: it starts no program.
FORKS = {"intake.judge_server": {"fork"}}

MOST_LINES = 320
MOST_ROOT_FILES = 14
MOST_PAGE_LINES = 130

TOP_LEVEL = words(
    "ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md LICENSE README.md SECURITY.md pyproject.toml ruff.toml setup.cfg"
) | words(".ci .gitignore base-image construir_ftp deploy docs etc tests")

# A Debian package, a git repository or a documentation comes from these, whoever builds.
PUBLIC_HOSTS = re.compile(
    r"([\w-]+\.)*(debian\.org|debian\.net|pypi\.org|pythonhosted\.org|python\.org|github\.com|kernel\.org)"
)


@functools.cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name in the package, but for the cards of rooms."""
    paths = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(parts): path for parts, path in paths.items() if parts[-1] != "__init__"}


def home(module: str) -> str:
    """The room that a module is in; its own name, if it is in none."""
    return module.partition(".")[0]


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(), str(modules()[module]))


def names_imported(module: str) -> Iterator[str]:
    """Everything a module imports, dotted, wherever in it the import stands."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports: of a.b.c the longest that there is."""
    found = set()
    for name in names_imported(module):
        parts = name.split(".")[1:] if name.startswith("construir_ftp.") else []
        shorter = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        found |= {next((candidate for candidate in shorter if candidate in modules()), "")}
    return found - {""}


def reached(module: str) -> set[str]:
    """Every module of the package that comes along with `module`, itself included."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        seen |= waiting
        waiting = set().union(*(own_imports(name) for name in waiting)) - seen
    return seen


# -- rooms -----------------------------------------------------------------------------------------------------


def test_every_module_is_in_a_room_or_of_the_ground() -> None:
    homes = {home(module) for module in modules()}
    assert homes == GROUND | RULE.keys() | {"__main__"}


def test_the_package_root_is_small() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= MOST_ROOT_FILES


def test_the_card_of_a_room_says_what_it_is_and_holds_no_code() -> None:
    for room in RULE:
        cards = [PACKAGE / room / "__init__.py", *(PACKAGE / room).glob("*/__init__.py")]
        for card in cards:
            (only,) = ast.parse(card.read_text()).body
            assert isinstance(only, ast.Expr), card
            assert isinstance(only.value, ast.Constant), card
            assert isinstance(only.value.value, str), card


def test_the_card_of_a_room_names_every_module_in_it() -> None:
    for card in PACKAGE.glob("*/**/__init__.py"):
        named = words(re.sub(r"\W", " ", card.read_text()))
        there = {path.stem for path in card.parent.glob("*.py")} | {
            path.parent.name for path in card.parent.glob("*/*.py")
        }
        assert there - {"__init__"} <= named, card


def test_imports_point_one_way() -> None:
    against = [
        f"{module} imports {name}"
        for module in modules()
        for name in own_imports(module)
        if home(name) not in GROUND and home(name) != home(module) and module != "__main__"
        if home(module) in GROUND or home(name) not in RULE[home(module)]
    ]
    assert against == []


def test_architecture_shows_the_rule_as_it_is() -> None:
    rooms = (PROJECT / "ARCHITECTURE.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| .+ \| ([\w ]*)\|$", rooms, re.MULTILINE)[1:]
    every = " ".join(RULE.keys() - {"cli"})
    assert {room: words(names.replace("all of these", every)) for room, names in rows} == RULE
    ground = re.search(r"the ground \(`([^`]+)`\)", rooms)
    assert ground
    assert words(ground[1]) == GROUND


def test_the_pages_are_short_enough_to_be_read() -> None:
    lengths = {name: len((PROJECT / name).read_text().splitlines()) for name in ("README.md", "ARCHITECTURE.md")}
    assert max(lengths.values()) <= MOST_PAGE_LINES, lengths


def test_the_rule_has_no_circle() -> None:
    below = {room: set(names) for room, names in RULE.items()}
    while below:
        ground_floor = [room for room, names in below.items() if not names & below.keys()]
        assert ground_floor, f"a circle of {sorted(below)}"
        for room in ground_floor:
            del below[room]


def test_no_module_imports_itself_in_a_circle() -> None:
    circles = [module for module in modules() if any(module in reached(name) for name in own_imports(module))]
    assert circles == []


def test_the_ftp_server_and_the_runner_meet_in_the_spool_only() -> None:
    for module in modules():
        assert {home(name) for name in reached(module)} & {FTP_SIDE, RUNNER_SIDE} <= {home(module)} or home(module) in (
            "appliance",
            "cli",
            "__main__",
        ), module


# -- libraries and programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_is_imported_in_its_place_only(library: str) -> None:
    users = {home(module) for module in modules() if library in {name.split(".")[0] for name in names_imported(module)}}
    assert users <= ONLY_IN[library]


def test_only_process_starts_programs() -> None:
    starts = []
    for module in modules().keys() - {"process"}:
        allowed = FORKS.get(module, set())
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                if node.func.attr in STARTERS.get(owner, set()) - allowed:
                    starts.append(f"{module}:{node.lineno}: {owner}.{node.func.attr}")
        for name in names_imported(module):
            library, _, what = name.partition(".")
            if what in STARTERS.get(library, ()):
                starts.append(f"{module}: from {library} import {what}")
    assert starts == []


def test_only_cli_prints_and_exits() -> None:
    loud = [
        f"{module}:{node.lineno}"
        for module in modules()
        if home(module) not in ("cli", "__main__")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "exit")
    ]
    assert loud == []


# -- sizes -----------------------------------------------------------------------------------------------------


def test_no_module_outgrows_a_reader() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in modules().items()}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}


def test_no_function_outgrows_a_reader() -> None:
    long = [
        f"{module}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None and node.end_lineno - node.lineno >= 50
    ]
    assert long == []


# -- the repository --------------------------------------------------------------------------------------------


def repository() -> list[Path]:
    """Every file of the repository: tracked, or about to be."""
    argv: list[str | Path] = ["git", "-C", PROJECT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = process.run(argv, timeout_s=60)
    except CommandError as error:
        pytest.skip(f"not a git checkout: {error}")
    paths = [PROJECT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_top_level_holds_what_the_design_lists() -> None:
    assert {path.relative_to(PROJECT).parts[0] for path in repository()} == TOP_LEVEL


def test_nothing_holds_the_marks_of_a_merge() -> None:
    marks = re.compile(rb"^(<{7}|>{7})( |$)", re.MULTILINE)
    assert [path for path in repository() if marks.search(path.read_bytes())] == []


def mirrors() -> set[str]:
    """Hosts that this machine takes packages from, or reaches the network through, and that others can't know."""
    sources = [*Path("/etc/apt").rglob("*.list"), *Path("/etc/apt").rglob("*.sources"), Path("/etc/pip.conf")]
    sources += [*Path("/etc/apt/apt.conf.d").glob("*"), Path.home() / ".config/pip/pip.conf"]
    texts = [path.read_text(errors="replace") for path in sources if path.is_file() and os.access(path, os.R_OK)]
    texts += [value for name, value in os.environ.items() if re.search("proxy|index|mirror", name, re.IGNORECASE)]
    urls = re.findall(r"\b(?:https?|ftp)://[^\s\"'\]]+", "\n".join(texts))
    hosts = {urlsplit(url).hostname or "" for url in urls}
    return {host for host in hosts if "." in host and not PUBLIC_HOSTS.fullmatch(host) and not host.startswith("127.")}


def test_nothing_names_a_mirror_or_a_path_of_a_build_machine() -> None:
    here = [f"{PROJECT}/"] if len(PROJECT.parts) > 2 else []
    traces = [word.encode() for word in ["/" + "work/", *here, *mirrors()]]
    found = [
        f"{path.relative_to(PROJECT)}: {trace.decode()}"
        for path in repository()
        for trace in traces
        if re.search(rb"(?<![\w.-])" + re.escape(trace), path.read_bytes())
    ]
    assert found == []
