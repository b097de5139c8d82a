"""A layer is brought whole from a server, or not at all."""

from pathlib import Path

import pytest

from construir_ftp.client import layers
from construir_ftp.errors import AnswerError
from tests.support.ftpclient import House

FILES = ("layer.sqfs", "layer.json")


def test_a_layer_is_brought_as_it_is(house: House, tmp_path: Path) -> None:
    place = house.spool.state("layers") / "tools@0123456789ab"
    place.mkdir()
    (place / "layer.sqfs").write_bytes(b"a layer")
    with house.client("anonymous") as ftp:
        ftp.voidcmd("TYPE I")
        assert not layers.bring(ftp, place.name, FILES, tmp_path, 1000), "half of it is none"
        (place / "layer.json").write_bytes(b"{}")
        assert layers.bring(ftp, place.name, FILES, tmp_path, 1000)
        assert [(tmp_path / name).read_bytes() for name in FILES] == [b"a layer", b"{}"]
        for name in ("nothing", "../done", "..", ""):
            assert not layers.bring(ftp, name, FILES, tmp_path, 1000)
        with pytest.raises(AnswerError, match="is larger than 3 bytes"):
            layers.bring(ftp, place.name, FILES, tmp_path, 3)
