"""Promises of check that need no server: what is not well is told in one line, with what to do."""

from pathlib import Path

import msgspec

from construir_ftp.appliance import check
from construir_ftp.config import Config, SpoolSection, TrustSection
from construir_ftp.jobs import nodes
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust import key_place, node_key


def test_a_front_whose_key_its_nodes_can_read_is_told(tmp_path: Path, spool: Spool) -> None:
    config = Config(spool=SpoolSection(path=str(spool.path)))
    elsewhere = msgspec.structs.replace(config, trust=TrustSection(key=str(tmp_path / "front.key")))
    key = key_place.open_key(spool.path, TrustSection())
    assert list(check.key_for_nodes(config)) == []
    nodes.place(spool.path, "far")
    node_key.admit(spool.path, "far", key_place.made(tmp_path / "far.key").public, key, "front")
    (one,) = check.key_for_nodes(config)
    assert (one.subject, one.state) == ("key and nodes", "warning")
    assert "by its nodes, such as far" in one.text
    assert "trust.key" in one.remedy
    assert list(check.key_for_nodes(elsewhere)) == []
