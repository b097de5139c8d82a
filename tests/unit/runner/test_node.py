"""A node offers what it has as soon as what it signs is believed, and nothing before."""

from pathlib import Path

from construir_ftp.config import TrustSection
from construir_ftp.jobs import nodes
from construir_ftp.jobs.spool import Spool
from construir_ftp.runner.node import Node
from construir_ftp.surroundings import NodesSection
from construir_ftp.trust import node_key
from tests.support import signed
from tests.unit.runner.test_fit import offers


def test_what_a_node_has_is_offered_at_the_first_look_after_it_is_admitted(spool: Spool, tmp_path: Path) -> None:
    front, node = signed.seal(spool.path), Node(spool, "far", NodesSection(), 30.0)
    node.seal(TrustSection(key=str(tmp_path / "far" / "construir.key")))
    had = offers("amd64", "bookworm-amd64")
    for _ in range(2):
        node.offer(lambda: had)
        assert nodes.offered(spool.path, "far") is None
    node_key.admit(spool.path, "far", node_key.asking(spool.path, "far"), front.key, front.host)
    node.offer(lambda: had)
    assert nodes.offered(spool.path, "far") == had
