"""`construir setup`: from an installed package, or a checkout, to an appliance that is open and has run its first job.

Each step looks first whether it is done: a second run changes nothing that is there.
"""

import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click

from construir_ftp import files, process
from construir_ftp.cli.options import configured, is_person_there, settings_of
from construir_ftp.cli.serve import print_findings
from construir_ftp.config import APPLIANCE_CONFIG, Config
from construir_ftp.errors import CommandError, ConstruirError, UsageError
from construir_ftp.ftp.users import Users
from construir_ftp.jobs.spool import Spool

# What the units of the Debian package are started by.
_TARGET = "construir.target"
_START_S = 900.0
_LOOK_S = 1.0
_NAME = "builder"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ADDRESS = re.compile(r"""^(address\s*=\s*)(?:"[^"]*"|'[^']*')""", re.MULTILINE)
_FTP = re.compile(r"^\[ftp\][^\n]*\n(?:(?!\[)[^\n]*(?:\n|\Z))*", re.MULTILINE)


@click.command("setup")
@click.option("--yes", "without_asking", is_flag=True, help="Ask nothing: what is proposed is taken.")
@click.option("--contributor", metavar="NAME", default=_NAME, show_default=True, help="Who may send jobs first.")
@configured
def setup_command(settings: Config, without_asking: bool, contributor: str) -> int:
    """Make this computer an appliance: build the base image, add a contributor, open the doors, run a job.

    Ends with what `construir check` says, and with the address. What is there already stays as it is.
    """
    config = click.get_current_context().params["config_path"]
    if not (without_asking or is_person_there()):
        raise UsageError("there is no terminal to ask on; use --yes")
    _build_image(settings)
    password = _add_contributor(settings, contributor)
    settings = _open_doors(settings, config, without_asking=without_asking)
    runs = _start(config) and _wait_for_door(settings)
    # With TLS its own name would not be that of the certificate.
    if runs and password and not settings.tls.require_tls:
        _run_a_job(settings, contributor, password)
    has_problems = print_findings(settings)
    _tell(settings, contributor, password, runs=runs)
    return int(has_problems)


def _step(text: str) -> None:
    click.echo(f"setup: {text}")


def _own(*words: str, env: dict[str, str] | None = None) -> int:
    """Run a command of ours, which speaks for itself; its exit status."""
    everything = {**os.environ, **(env or {})}
    out, err = sys.stdout.fileno(), sys.stderr.fileno()
    with process.spawn(process.ourselves(*words), env=everything, stdout=out, stderr=err) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            raise


def _build_image(settings: Config) -> None:
    name = settings.images.default
    _step(f"base image {name}: a minute or two the first time")
    if _own("image", "build", name, *_places()):
        raise ConstruirError(f"the base image '{name}' could not be built; why is said above")


def _places() -> list[str]:
    """The options that have another command use the same configuration."""
    given = click.get_current_context().params
    options = {"--config": given["config_path"], "--spool": given["spool"], "--images": given["images"]}
    return [f"{option}={path.absolute()}" for option, path in options.items() if path is not None]


def _add_contributor(settings: Config, name: str) -> str:
    """The password of the first contributor, which is told once; empty where there is one already."""
    Spool.prepare(settings.spool_path())
    users = Users(settings.users_path())
    if there := users.names():
        _step(f"contributors are there: {', '.join(there)}")
        return ""
    password = secrets.token_urlsafe(12)
    users.add(name, password)
    _step(f"a contributor: {name}")
    return password


def _open_doors(settings: Config, config: Path | None, *, without_asking: bool) -> Config:
    """Have the FTP server listen to others too, if that is wanted; the configuration as it is then."""
    if settings.ftp.address not in _LOOPBACK:
        return settings
    if config is None:
        _step("without a configuration only this computer reaches it; see docs/operator.md, Listen to the world")
        return settings
    if not (without_asking or click.confirm("Open the doors, so that others reach it?", default=True)):
        return settings
    address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - that is what is asked for
    set_address(config, address)
    _step(f"the doors are open: ftp.address is {address} in {config}")
    given = click.get_current_context().params
    return settings_of(config, given["spool"], given["images"])


def set_address(config: Path, address: str) -> None:
    """Put ftp.address into a configuration file, which keeps all else that is in it, its owner and its mode."""
    text = f"{config.read_text(encoding='utf-8-sig').rstrip()}\n"
    line = f'address = "{address}"'
    section = _FTP.search(text)
    if section is None:
        changed = f"{text}\n[ftp]\n{line}\n"
    elif _ADDRESS.search(section[0]):
        changed = text.replace(section[0], _ADDRESS.sub(line, section[0], count=1), 1)
    else:
        changed = text.replace(section[0], section[0].replace("\n", f"\n{line}\n", 1), 1)
    seen = config.stat()
    files.replace_durably(config, changed.encode(), seen.st_mode & 0o777)
    with suppress(PermissionError):  # an ordinary user's own file is theirs already
        shutil.chown(config, seen.st_uid, seen.st_gid)


def _start(config: Path | None) -> bool:
    """Start the package's units with the configuration as it is; false if they are not what runs this one."""
    if config != APPLIANCE_CONFIG or not Path("/run/systemd/system").is_dir():
        return False
    _step(f"starting {_TARGET}")
    try:
        process.run(["systemctl", "restart", _TARGET], timeout_s=_START_S)
    except CommandError as error:
        raise ConstruirError(f"{error}; see: journalctl -u 'construir-*'") from error
    return True


def _wait_for_door(settings: Config) -> bool:
    """Wait until the FTP server takes connections."""
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        with suppress(OSError), socket.create_connection(_own_door(settings), timeout=_LOOK_S):
            return True
        time.sleep(_LOOK_S)
    raise ConstruirError("the FTP server does not come up; see: journalctl -u construir-ftp")


def _own_door(settings: Config) -> tuple[str, int]:
    address = settings.ftp.address
    return {"::": "::1", "0.0.0.0": "127.0.0.1"}.get(address, address), settings.ftp.port  # noqa: S104 - compared


def _run_a_job(settings: Config, contributor: str, password: str) -> None:
    """Send a job as its contributor would, and wait for its result."""
    _step("a first job")
    host, port = _own_door(settings)
    with tempfile.TemporaryDirectory(prefix="construir-setup-") as name:
        home, job = Path(name), Path(name) / "first"
        job.mkdir()
        (job / "run.sh").write_text('#!/bin/sh\necho "hello from a machine of $(uname -sr)"\n')
        (job / "run.sh").chmod(0o755)
        (home / ".netrc").write_text(f"machine {host} login {contributor} password {password}\n")
        (home / ".netrc").chmod(0o600)
        server = f"ftp://{contributor}@{f'[{host}]' if ':' in host else host}:{port}"
        words = ("submit", str(job), f"--server={server}", "--tls=never", "--space=1MiB", "--wait")
        if _own(*words, env={"HOME": name, "XDG_STATE_HOME": name}):
            raise ConstruirError("the first job did not succeed; why is said above, and in: construir status")


def _tell(settings: Config, contributor: str, password: str, *, runs: bool) -> None:
    if not runs:
        _step("start it with: construir serve")
    host = _reached_by(settings)
    url = f"ftp://{contributor}@{f'[{host}]' if ':' in host else host}:{settings.ftp.port}"
    if password:
        click.echo(f"\nContributor: {contributor}\nPassword:    {password}      (is told this once)")
    click.echo(f"Address:     {url.replace(f'{contributor}@', '')}/\n")
    click.echo(f"To send a job from anywhere that reaches it: construir submit DIRECTORY --server {url} --wait")


def _reached_by(settings: Config) -> str:
    """The address of this computer that its network knows, or what it listens on."""
    if settings.ftp.masquerade_address:
        return settings.ftp.masquerade_address
    if settings.ftp.address not in ("::", "0.0.0.0"):  # noqa: S104 - compared
        return settings.ftp.address
    # No packet is sent: the kernel only chooses a way (connect(2), datagram sockets). The address is for documentation.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"
