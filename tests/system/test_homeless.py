"""Commands of users without a home directory, or with one that can't be used: one line says what to set."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import images, ordinaryuser, signed
from tests.support.ftpclient import House

pytestmark = pytest.mark.root("only root can be an ordinary user")

_CURE = "set HOME to a directory of yours, or both XDG_STATE_HOME and XDG_CACHE_HOME"
# A system on which nothing tells where the user's home is.
_UNKNOWN = [word for file in ("passwd", "nsswitch.conf") for word in ("--ro-bind", "/dev/null", f"/etc/{file}")]
_NO_PASSWD = ("bwrap", "--dev-bind", "/", "/", *_UNKNOWN, "--")


def typed(place: Path, line: str, *env: str, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """A command line as an ordinary user types it in `place`, whose environment has these variables, and no HOME."""
    argv = [*before, "env", "-u", "HOME", "-u", "XDG_STATE_HOME", "-u", "XDG_CACHE_HOME", *env]
    argv += [sys.executable, "-m", "construir_ftp", *line.split()]
    return ordinaryuser.run(argv, [Path(sys.prefix), Path(sys.base_prefix)], place)


@pytest.mark.parametrize(
    ("home", "lines"),
    [
        ("/nonexistent", ("serve", "user add alice --password-stdin", "image list", "run job")),
        ("/dev/null", ("user add alice --password-stdin",)),
        ("not/absolute", ("status",)),
    ],
)
def test_an_operator_without_a_home_is_told_what_to_set(home: str, lines: tuple[str, ...], tmp_path: Path) -> None:
    images.job_directory(tmp_path / "job")
    for line in lines:
        said = typed(tmp_path, line, f"HOME={home}", "XDG_STATE_HOME=relative")
        assert (said.returncode, said.stdout) == (78, ""), line
        assert said.stderr == f"construir: the home directory {home} can't be used; {_CURE}\n", line


def test_a_user_whom_nothing_gives_a_home_is_told_to_set_one(tmp_path: Path) -> None:
    for line in ("status", "jobs --server=ftp://127.0.0.1:1"):
        said = typed(tmp_path, line, before=_NO_PASSWD)
        assert said.returncode == 78, said.stderr
        assert said.stderr == f"construir: the home directory ~ can't be used; {_CURE}\n"


def test_places_that_are_named_need_no_home(tmp_path: Path) -> None:
    places = ("XDG_STATE_HOME=/proc", f"XDG_CACHE_HOME={tmp_path}")
    assert "no spool at /proc/construir; name it with --spool" in typed(tmp_path, "status", *places).stderr
    refused = typed(tmp_path, "layer list --spool=spool --images=images", before=_NO_PASSWD)
    assert refused.stderr.startswith("construir: no spool at "), refused.stderr


def test_a_contributor_without_a_home_sends_looks_and_inspects(house: House, tmp_path: Path) -> None:
    """Only what this computer would remember is missed, in a line that says what to set."""
    images.job_directory(tmp_path / "job")
    server = house.url("")
    for home in ("/nonexistent", "/dev/null"):
        assert typed(tmp_path, "pack job -o job.img.zst", f"HOME={home}").returncode == 0
        assert typed(tmp_path, "inspect job.img.zst", f"HOME={home}").stdout.startswith("226 Accepted\n")
        assert typed(tmp_path, f"jobs --server={server}", f"HOME={home}").returncode == 0
        nowhere = typed(tmp_path, "cancel x", f"HOME={home}")
        assert nowhere.stderr.startswith("construir: no server is named; set CONSTRUIR_SERVER")
        unasked = typed(tmp_path, f"submit job.img.zst {server}", f"HOME={home}")
        assert "no password for 127.0.0.1, and no terminal to ask on" in unasked.stderr


def test_a_job_is_sent_where_nothing_can_be_remembered_and_a_line_says_what_to_set(
    house: House, tmp_path: Path
) -> None:
    images.job_directory(tmp_path / "job")
    (tmp_path / ".netrc").write_text('machine 127.0.0.1 login alice password "correct horse"\n')
    (tmp_path / ".netrc").chmod(0o600)
    said = typed(tmp_path, f"submit job {house.url('')}", f"HOME={tmp_path}", "XDG_STATE_HOME=/proc")
    assert (said.returncode, said.stdout.count("\n")) == (0, 1), said.stderr
    assert said.stderr.endswith("will not remember; set HOME, or XDG_STATE_HOME, to a directory of yours\n")
    assert said.stderr.count("remember") == 1
    elsewhere = typed(tmp_path, f"submit job {house.url('')}", "HOME=/root")
    assert "is HOME right?" in elsewhere.stderr
    assert elsewhere.stderr.count("\n") == 1


def test_a_result_is_not_taken_where_the_servers_key_cannot_be_kept(house: House, tmp_path: Path) -> None:
    signed.result(house.spool, signed.seal(house.spool.path))
    said = typed(tmp_path, f"fetch {signed.ID} --server={house.url('')}", "HOME=/nonexistent")
    assert said.returncode == 1, said.stderr
    assert said.stderr.endswith("can't be kept; set HOME, or XDG_STATE_HOME, to a directory of yours\n")
    assert said.stderr.count("\n") == 1
