"""Accounts for the Slurm of a test: slurmdbd, with a MariaDB. Nobody may submit a job there but by an account.

They are Debian's programs, which deploy/prepare has unpacked, in the namespaces of slurm.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import slurm
from tests.support.places import PROJECT
from tests.support.slurm import Slurm

_PROGRAMS = PROJECT / ".venv" / "programs" / "usr"
_LIBRARIES = _PROGRAMS / "lib/x86_64-linux-gnu"
# Where Debian's plugins are that are installed, and those that are only unpacked.
_PLUGINS = f"/usr/lib/x86_64-linux-gnu/slurm-wlm:{_LIBRARIES}/slurm-wlm"
_UP_S = 60.0
_SETTINGS = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePass={place}/munge.socket
AccountingStorageEnforce=associations,limits
"""
ACCOUNT = "builds"


@contextmanager
def running(place: Path) -> Iterator[Slurm]:
    """A Slurm where root may submit jobs by the account "builds" alone."""
    with slurm.running(place, more=_SETTINGS.format(place=place), prepare=_start) as cluster:
        yield cluster


def manage(cluster: Slurm, *words: str) -> None:
    """Change what Slurm knows of accounts (sacctmgr(1))."""
    cluster.run(_PROGRAMS / "bin/sacctmgr", "--immediate", *words)


def let(cluster: Slurm, account: str) -> None:
    """Let root submit jobs by an account, which is made."""
    manage(cluster, "add", "account", account)
    manage(cluster, "add", "user", "root", f"account={account}")


def _start(cluster: Slurm) -> None:
    socket = _start_database(cluster)
    text = f"""AuthType=auth/munge
AuthInfo=socket={cluster.place}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
SlurmUser=root
LogFile={cluster.place}/slurmdbd.log
PidFile={cluster.place}/slurmdbd.pid
PluginDir={_PLUGINS}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
"""
    settings = cluster.place / "slurmdbd.conf"
    settings.touch(mode=0o600)
    settings.write_text(text)
    cluster.run("env", f"MYSQL_UNIX_PORT={socket}", f"LD_LIBRARY_PATH={_LIBRARIES}", _PROGRAMS / "sbin/slurmdbd")
    _wait(cluster, "sacctmgr", "--noheader", "list", "cluster")
    manage(cluster, "add", "cluster", "construir")
    let(cluster, ACCOUNT)


def _start_database(cluster: Slurm) -> Path:
    """A MariaDB, without users or a network; its socket."""
    data, socket = cluster.place / "data", cluster.place / "data/socket"
    data.mkdir()
    argv: list[str | Path] = [_PROGRAMS / "sbin/mariadbd", "--no-defaults", "--user=root", f"--datadir={data}"]
    (tables,) = _PROGRAMS.glob("share/*/m*_system_tables.sql")
    argv += [f"--lc-messages-dir={tables.parent}", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"]
    first = f"create database mysql;\nuse mysql;\n{tables.read_text()}"
    subprocess.run([*argv, "--bootstrap"], input=first, text=True, check=True, capture_output=True, timeout=_UP_S)
    log = cluster.place / "mariadbd.log"
    argv += ["--skip-grant-tables", "--skip-networking", f"--socket={socket}", f"--log-error={log}"]
    cluster.run("setsid", "--fork", *argv)
    deadline_s = time.monotonic() + _UP_S
    while not (log.exists() and "ready for connections" in log.read_text()):
        assert time.monotonic() < deadline_s, cluster.logs()
        time.sleep(0.1)
    return socket


def _wait(cluster: Slurm, name: str, *words: str) -> None:
    """Until a command of Slurm's ends well."""
    argv, deadline_s = cluster.words(_PROGRAMS / "bin" / name, *words), time.monotonic() + _UP_S
    while (done := subprocess.run(argv, capture_output=True, text=True, timeout=_UP_S, check=False)).returncode:
        assert time.monotonic() < deadline_s, done.stderr + cluster.logs()
        time.sleep(0.1)
