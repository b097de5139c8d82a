"""Patterns of `outputs`: what they match, and what can't be one."""

import json

import pytest

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import outputs, request
from construir_ftp.jobs.outputs import Patterns

TREE = ("run.sh", "out", "out/a.deb", "out/b.deb", "out/.c.deb", "out/deep", "out/deep/d.deb", ".git", ".git/e.deb")
DIRECTORIES = ("out", "out/deep", ".git")


def matched(pattern: str) -> list[str]:
    patterns = Patterns([pattern])
    entered = {directory for directory in DIRECTORIES if _entered(patterns, directory)}
    files = [path for path in TREE if path not in DIRECTORIES]
    return [path for path in files if path.rpartition("/")[0] in entered | {""} and patterns.matched(path)]


def _entered(patterns: Patterns, directory: str) -> bool:
    above = directory.rpartition("/")[0]
    return (not above or _entered(patterns, above)) and patterns.enters(directory)


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("out/*.deb", ["out/a.deb", "out/b.deb"]),
        ("out/[!a].deb", ["out/b.deb"]),
        ("*/?.deb", ["out/a.deb", "out/b.deb"]),
        ("out/.c.deb", ["out/.c.deb"]),
        (".*/*.deb", [".git/e.deb"]),
        ("**/*.deb", ["out/a.deb", "out/b.deb", "out/deep/d.deb"]),
        ("out/**", ["out/a.deb", "out/b.deb", "out/deep/d.deb"]),
        ("**/deep/**/d.deb", ["out/deep/d.deb"]),
        ("**", ["run.sh", "out/a.deb", "out/b.deb", "out/deep/d.deb"]),
        ("run.sh", ["run.sh"]),
        ("out", []),
        ("OUT/*", []),
    ],
)
def test_pattern_matches_as_in_a_shell(pattern: str, paths: list[str]) -> None:
    assert matched(pattern) == paths


def test_directories_that_nothing_is_asked_of_are_not_entered() -> None:
    patterns = Patterns(["out/*.deb", "log/**"])
    assert [patterns.enters(path) for path in ("out", "out/deep", "src", "log", "log/a", "log/a/b")] == [
        *(True, False, False, True, True, True)
    ]


def test_many_stars_take_no_time_that_grows_with_their_number() -> None:
    patterns = Patterns(["*a" * 90 + "b", "/".join(["**", "*a*"] * 20)])
    path = ""
    for _ in range(50):
        path += "/a" if path else "a"
        patterns.enters(path)
    assert patterns.matched(f"{path}/{'a' * 200}") == [1]


@pytest.mark.parametrize(
    "pattern", ["", "/etc/passwd", "../x", "a/../b", "./a", "a/", "a//b", "a**", "a\nb", "a\\b", "x" * 201, "a/."]
)
def test_what_is_no_path_in_the_image_is_refused_by_its_key(pattern: str) -> None:
    assert not outputs.is_pattern(pattern)
    with pytest.raises(RefusedError, match=r"construir.toml: outputs: expected paths of files, such as"):
        request.read(f"outputs = {json.dumps([pattern])}")


@pytest.mark.parametrize("name", ["hello_2.10-3+b1~rc1_amd64.deb", "a", "x=1,y@2-3", "_", "A" * 128])
def test_name_of_an_artifact(name: str) -> None:
    assert outputs.is_name(name)


@pytest.mark.parametrize("name", ["", ".x", "-rf", "a b", "a/b", "a\nb", "a\n", "é", "A" * 129, "..", "a\\b", "a:b"])
def test_what_no_artifact_is_called(name: str) -> None:
    assert not outputs.is_name(name)
