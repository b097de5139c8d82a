"""Promises of demands: what `construir serve` refuses, `construir check` finds, in the same words."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from construir_ftp.appliance import supervisor
from construir_ftp.appliance.demands import DEMANDS
from tests.support import images, ports
from tests.support.appliance import construir
from tests.support.places import PROJECT
from tests.support.tlsclient import make_certificate

_TAKEN = socket.create_server(("127.0.0.1", 0))
# For each demand a configuration that does not meet it, as a function of a directory, and words of the refusal.
_WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "memory": (lambda _: '[machine]\nmemory = "1000TiB"\n', "which is all that this host has"),
    "users file": (lambda place: f'[ftp]\nusers = "{place}/nobody.toml"\n', "construir user add NAME"),
    "passive ports": (lambda _: '[ftp]\npassive_ports = "50000"\n', 'such as "60000-60100"'),
    "masquerade address": (lambda _: '[ftp]\nmasquerade_address = "home"\n', "expected an IPv4 address"),
    "certificate and key": (lambda place: f'[tls]\ncertificate = "{place}/gone.pem"\n', "No such file"),
    "news": (
        lambda place: f'[notify]\nwebhook = "http://127.0.0.1:1"\nwebhook_secret_file = "{place}/gone"\n',
        "gone",
    ),
    "required jail": (lambda _: "", ""),  # test_appliance_that_must_have_a_jail_does_not_start_without_one
    "port": (lambda _: f"[ftp]\nport = {_TAKEN.getsockname()[1]}\n", "FTP can't listen on 127.0.0.1"),
}


def test_every_demand_has_a_configuration_here_that_does_not_meet_it() -> None:
    assert set(_WRONG) == {demand.subject for demand in DEMANDS}


@pytest.mark.parametrize("subject", [subject for subject in _WRONG if subject != "required jail"])
def test_what_serve_refuses_is_a_problem_to_check(subject: str, tmp_path: Path) -> None:
    text, words = _WRONG[subject]
    config = tmp_path / "construir.toml"
    config.write_text(text(tmp_path))
    options = (f"--config={config}", f"--spool={tmp_path / 'spool'}", f"--images={tmp_path}")
    served = construir("serve", *options, timeout_s=60)
    assert served.returncode in (1, 78)
    assert words in served.stderr
    found = {one["subject"]: one for one in msgspec.json.decode(construir("check", "--json", *options).stdout)}
    assert found[subject]["state"] == "problem"
    assert words in found[subject]["text"]
    assert found[subject]["text"] in served.stderr


@pytest.mark.parametrize("part", supervisor.PARTS)
def test_a_part_that_a_wrong_configuration_ends_is_not_started_again_by_its_unit(part: str, tmp_path: Path) -> None:
    config, unit = tmp_path / "construir.toml", PROJECT / "deploy" / "systemd" / f"construir-{part}.service"
    config.write_text("[ftp]\nprot = 21\n")
    ended = construir("serve", part, f"--config={config}", f"--spool={tmp_path / 'spool'}", timeout_s=60)
    assert "prot" in ended.stderr
    assert f"\nRestartPreventExitStatus={ended.returncode}\n" in unit.read_text()


def test_a_damaged_users_file_is_refused_by_both(tmp_path: Path) -> None:
    (tmp_path / "users.toml").write_text("[contributors.alice]\npassword = 'in clear'\n")
    for command in ("serve", "check"):
        said = construir(command, f"--spool={tmp_path}", f"--images={tmp_path}", timeout_s=60)
        assert said.returncode in (1, 78)
        assert "not an argon2 hash" in said.stdout + said.stderr


def test_what_is_demanded_and_met_is_told(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    images.run("chmod", "o=", files[1])
    config = tmp_path / "construir.toml"
    config.write_text(f'[ftp]\nport = 0\n[tls]\ncertificate = "{files[0]}"\nkey = "{files[1]}"\n')
    said = construir("check", f"--config={config}", f"--spool={tmp_path / 'spool'}", f"--images={tmp_path}").stdout
    assert "ok       memory: " in said
    assert "ok       passive ports: any that is free" in said
    assert "ok       certificate and key: " in said
    assert "ok       port: 127.0.0.1 port any is free" in said
    assert "masquerade" not in said


def findings(config: Path, spool: Path) -> dict[str, Any]:
    said = construir("check", "--json", f"--config={config}", f"--spool={spool}", f"--images={spool}").stdout
    return {one["subject"]: one for one in msgspec.json.decode(said)}


def test_what_is_met_and_yet_not_well_is_a_warning_that_says_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "construir.toml"
    config.write_text("[machine]\ncpus = 1000\n[ftp]\nport = 0\n")
    found = findings(config, tmp_path / "spool")
    assert found["memory"]["state"] == "warning"
    assert found["memory"]["remedy"].startswith("machine.cpus is 1000; this host has ")
    config.write_text('[runner]\nslots = 1000\n[ftp]\nport = 0\npassive_ports = "50000-50010"\n')
    found = findings(config, tmp_path / "spool")
    assert (found["memory"]["state"], found["passive ports"]["state"]) == ("warning", "warning")
    assert found["memory"]["remedy"].startswith("runner.slots is 1000; this host has")
    assert "a port for each session" in found["passive ports"]["remedy"]


def test_port_of_a_part_that_was_started_by_itself_is_its_own_spools_alone(tmp_path: Path) -> None:
    port = ports.free()
    config = tmp_path / "construir.toml"
    config.write_text(f"[ftp]\nport = {port}\n")
    options = (f"--config={config}", f"--spool={tmp_path / 'spool'}")
    argv = [sys.executable, "-m", "construir_ftp", "serve", "ftp", *options]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as part:
        try:
            assert part.stderr is not None
            while "FTP on" not in part.stderr.readline():
                assert part.poll() is None
            assert findings(config, tmp_path / "spool")["port"]["text"].startswith("the appliance that runs here")
            assert findings(config, tmp_path / "other")["port"]["state"] == "problem"
            config.write_text(f"[ftp]\nport = {_TAKEN.getsockname()[1]}\n")
            taken = findings(config, tmp_path / "spool")["port"]
            assert (taken["state"], "Address already in use" in taken["text"]) == ("problem", True), "a stranger's"
            config.write_text(f"[ftp]\nport = {ports.free()}\n")
            free = findings(config, tmp_path / "spool")["port"]
            assert free["text"].endswith(f"process {part.pid}, has others until it is started again")
            config.write_text(f"[ftp]\nport = {port}\n")
            told = construir("status", *options, check=True).stdout
            assert told.startswith("the appliance runs, in parts: ftp\n")
            assert "these do not run: runner, janitor, site; see why with: construir check\n" in told
            second = construir("serve", "ftp", "--port=0", *options)
            assert (second.returncode, second.stderr.count("\n")) == (1, 1)
            assert f"another ftp, process {part.pid}, already works on" in second.stderr
        finally:
            part.terminate()
