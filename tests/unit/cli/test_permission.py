"""What somebody is told who may not do what only the user who runs the appliance may."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from construir_ftp.cli import permission
from construir_ftp.errors import ConfigError
from construir_ftp.ftp.users import Users
from construir_ftp.jobs import service
from construir_ftp.jobs.service import Service
from construir_ftp.jobs.spool import Spool

pytestmark = pytest.mark.root("only root can be another user")
_OTHER = 65534


@pytest.fixture
def open_spool() -> Iterator[Spool]:
    """Root's spool, in a place that everyone can look into, which pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        spool = Spool.prepare(Path(name) / "spool")
        Users(spool.path / "users.toml").add("alice", "battery-staple")
        yield spool


def as_another(call: Callable[[], object]) -> BaseException:
    """What is raised where another user than root makes a call."""
    with pytest.raises((OSError, ConfigError)) as refused:
        os.seteuid(_OTHER)
        try:
            call()
        finally:
            os.seteuid(0)
    return refused.value


def told(error: BaseException) -> str:
    """What the command says of it, as another user."""
    os.seteuid(_OTHER)
    try:
        return permission.in_words(error) if isinstance(error, OSError) else permission.in_spool(error.__cause__)
    finally:
        os.seteuid(0)


def test_who_may_not_decide_of_an_appliance_is_told_who_may(open_spool: Spool) -> None:
    expected = f"Permission denied: {open_spool.path} is root's, who runs the appliance; run this as root"
    paused = as_another(lambda: service.decide(open_spool.path, Service().paused()))
    assert told(paused) == expected
    listed = as_another(lambda: Users(open_spool.path / "users.toml").names())
    assert told(listed) == expected, "and not to make the file readable for the FTP server"


def test_of_other_files_only_what_is_wrong_is_said(open_spool: Spool) -> None:
    outside = open_spool.path.with_name("outside")
    outside.write_text("")
    outside.chmod(0o600)
    assert told(as_another(outside.read_bytes)) == f"Permission denied: {outside}"
    assert permission.in_words(PermissionError(13, "Permission denied", str(open_spool.path))) == (
        f"Permission denied: {open_spool.path}"
    ), "who asks is who runs it"
    assert permission.in_words(FileNotFoundError(2, "No such file", "/none")) == "No such file: /none"
