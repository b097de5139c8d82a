"""What `construir setup` writes into a configuration that is there."""

from pathlib import Path

import pytest

from construir_ftp import config
from construir_ftp.cli.setup import set_address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "[machine]\nwarm = false\n",
        "[ftp]\nport = 2121\n[tls]\n",
        "[ftp]",
        "[ftp]\n\n# who\naddress='127.0.0.1'\n",
        '[ftp]  # here\naddress = "127.0.0.1" # nobody else\n\n[jail]\nrequire_jail = true',
    ],
)
def test_the_address_is_in_it_and_all_else_stays(text: str, tmp_path: Path) -> None:
    path = tmp_path / "construir.toml"
    path.write_text(text)
    before = config.load(path)
    set_address(path, "::")
    after = config.load(path)
    assert after.ftp.address == "::"
    assert (after.machine, after.jail, after.ftp.port) == (before.machine, before.jail, before.ftp.port)
    kept = [line for line in text.splitlines() if "address" not in line]
    assert [line for line in path.read_text().splitlines() if line in kept] == kept
