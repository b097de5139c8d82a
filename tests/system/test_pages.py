"""The commands in docs/: all that are marked to be run are run, page by page, as a newcomer would copy them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from construir_ftp.image.baseimage import BaseImage
from tests.support.appliance import NAME, Appliance
from tests.support.newcomer import Newcomer
from tests.support.places import PROJECT
from tests.support.tlsclient import make_certificate

PAGES = sorted((PROJECT / "docs").glob("*.md"))
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a fence may say of what is in it: commands that are run here, commands for another place, and what is none.
_KINDS = {"sh", "sh elsewhere", "toml", "text", "json", "python"}


def fences(page: Path) -> list[tuple[str, str]]:
    return [(kind.strip(), text) for kind, text in _FENCE.findall(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_fence_says_whether_it_is_run(page: Path) -> None:
    assert {kind for kind, _ in fences(page)} <= _KINDS
    assert page.read_text().startswith("# ")


@pytest.mark.parametrize("page", [page for page in PAGES if "sh" in dict(fences(page))], ids=lambda page: page.stem)
def test_the_commands_of_a_page_work_as_they_are(
    page: Path, light_base: BaseImage, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """But for the server's address, and for the base image of a machine that is looked at: the appliance's default."""
    # An image that is built, or would be if its recipe had changed, is of the usual kind.
    appliance: Appliance = request.getfixturevalue("usual_appliance" if page.stem == "images" else "shared_appliance")
    newcomer = Newcomer(tmp_path, appliance)
    commands = "".join(text for kind, text in fences(page) if kind == "sh")
    commands = re.sub(r"(?<= image shell )\S+", light_base.name, commands)
    server = f"export CONSTRUIR_SERVER=ftp://{NAME}@server:2121\n"
    said = newcomer.type(newcomer.at(appliance, server + "set -x\n" + commands))
    assert said.returncode == 0, (said.stdout[-3000:], said.stderr[-3000:])


@pytest.mark.parametrize("section", ["Logs", "Stop, out of service, end a job", "Upgrade"])
def test_the_operators_page_tells_of_a_checkout_and_of_the_debian_package(section: str) -> None:
    text = (PROJECT / "docs/operator.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert re.search(r"(journalctl -u|systemctl stop) construir ", text.replace("\n", " "))
    assert re.search(r"\bcheckout\b", text)
    assert re.search(r"construir-\*|construir\.target|deploy/package", text)


def test_the_units_that_the_operators_page_names_are_the_packages() -> None:
    units = {path.name for path in (PROJECT / "deploy/systemd").iterdir()}
    named = set(re.findall(r"\bconstruir(?:-[a-z]+\.service|\.target)", (PROJECT / "docs/operator.md").read_text()))
    assert named
    assert named <= units
    assert all(name.startswith("construir-") for name in units - {"construir.target"}), "what journalctl is asked for"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_100_columns_at_most_but_for_tables(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", [*PAGES, *PROJECT.glob("*.md")], ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


_CERTBOT = """#!/bin/sh
while [ "$1" != --deploy-hook ]; do shift; done
RENEWED_LINEAGE=$PLACE exec sh -c "$2"
"""


@pytest.mark.root("a group is made, in a copy of /etc")
def test_the_hook_that_certbot_is_given_leaves_a_key_for_the_servers_group_alone(tmp_path: Path) -> None:
    (lines,) = (text for _, text in fences(PROJECT / "docs/ftp-and-tls.md") if "certbot" in text)
    files = make_certificate(tmp_path)
    for file, name in zip(files, ("fullchain.pem", "privkey.pem"), strict=True):
        file.rename(tmp_path / name)
    (tmp_path / "certbot").write_text(_CERTBOT)
    (tmp_path / "certbot").chmod(0o755)
    script = f"""set -e
    cp -a /etc "$PLACE/etc" && mount --bind "$PLACE/etc" /etc
    {lines}{lines}
    setpriv --reuid=61234 --regid=construir --clear-groups cat /etc/construir/privkey.pem
    ! setpriv --reuid=61234 --regid=61234 --clear-groups cat /etc/construir/privkey.pem 2>&1
    """
    env = {**os.environ, "PLACE": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["unshare", "--mount", "--propagation=private", "bash", "-c", script]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "privkey.pem").read_text() in done.stdout
    assert "Permission denied" in done.stdout
