"""The units of systemd that the package brings: one for each part, and all of them under the target."""

import configparser
from pathlib import Path

import pytest

from construir_ftp.appliance.supervisor import PARTS
from tests.support.places import PROJECT

SERVICES = sorted((PROJECT / "deploy" / "systemd").glob("*.service"))
_SERVE = "/usr/bin/construir serve "
_TAKE_JOBS = ("runner", "node")


def unit(path: Path) -> configparser.ConfigParser:
    """What it says; of a key that is said twice, the last."""
    read = configparser.ConfigParser(strict=False, delimiters="=", interpolation=None)
    read.optionxform = str  # type: ignore[method-assign,assignment] # keys are in mixed case
    read.read(path)
    return read


def test_each_part_has_a_unit_and_so_have_the_web_server_and_a_node() -> None:
    started = [unit(path)["Service"]["ExecStart"] for path in SERVICES]
    served = [line.removeprefix(_SERVE) for line in started if line.startswith(_SERVE)]
    assert sorted(served) == sorted([*PARTS, "node --name=%l", "web"])


def test_a_node_is_kept_from_what_a_runner_is_kept_from() -> None:
    services = [unit(PROJECT / "deploy" / "systemd" / f"construir-{part}.service")["Service"] for part in _TAKE_JOBS]
    apart = {"ExecStart", "LoadCredential", "StateDirectory", "StateDirectoryMode", "RestartPreventExitStatus"}
    runner, node = ({key: said for key, said in service.items() if key not in apart} for service in services)
    assert node == runner
    assert "LockPersonality" not in runner, "user-mode machines start by setarch(8), which it forbids"


@pytest.mark.parametrize("part", PARTS)
def test_the_target_starts_and_stops_each_part(part: str) -> None:
    said = unit(PROJECT / "deploy" / "systemd" / f"construir-{part}.service")
    assert said["Unit"]["PartOf"] == said["Install"]["WantedBy"] == "construir.target"
    assert said["Service"]["Type"] == "notify"
    assert int(said["Service"]["WatchdogSec"]) > 0


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_a_part_ends_for_good_by_a_wrong_configuration_and_by_nothing_that_may_pass(path: Path) -> None:
    said = unit(path)
    assert "78" in said["Service"]["RestartPreventExitStatus"].split()
    assert said["Service"]["Restart"] in ("always", "on-failure")
    assert said["Unit"]["StartLimitIntervalSec"] == "0"
    # As an old computer takes where all of them start at once.
    assert int(said["Service"]["TimeoutStartSec"]) >= 300
    assert int(said["Service"]["WatchdogSec"]) > 0
