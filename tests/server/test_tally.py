"""Promises of the tally: what the FTP server accepts and refuses is counted, by reason, with the time it took."""

from pathlib import Path

import msgspec

from construir_ftp.jobs import tally
from tests.support.ftpclient import Control, House


def test_uploads_are_counted_by_what_became_of_them(house: House, alice: Control, hello: Path, tmp_path: Path) -> None:
    assert alice.store("/queue/hello.img.zst", hello.read_bytes()).startswith("226 Accepted")
    assert alice.store("/queue/hello2.img.zst", hello.read_bytes()[:-100]).startswith("550")
    with alice.passive():
        assert alice.ask("STOR /queue/no job").startswith("553")
    house.server.tell_tally(house.spool.path)
    told = tally.read(house.spool.path)
    assert told.accepted == 1
    assert {reason: count for reason, count in told.refused.items() if count} == {"no-job": 1, "name": 1}
    assert sum(told.checks) == 2
    assert 0 < told.check_seconds < 120


def test_a_tally_that_cannot_be_read_counts_nothing(tmp_path: Path) -> None:
    for content in (b"", b"[]", b'{"checks": [1]}', msgspec.json.encode({"accepted": "x"})):
        (tmp_path / tally.FILE).write_bytes(content)
        assert tally.read(tmp_path) == tally.Tally()
