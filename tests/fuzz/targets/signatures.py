"""What proves a result, as a stranger may have made it: signature, list of files, keys, envelopes, result.json."""

from collections.abc import Callable

import msgspec

from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import result, sums
from construir_ftp.trust import dsse, keys, recipe, sshsig, statement
from tests.fuzz.targets import alone, demand_line


def _signature(data: bytes) -> None:
    assert sshsig.armored(sshsig.parse(data)) == data


def _list(data: bytes) -> None:
    assert sums.render(sums.parse(data)) == data


def _keys(data: bytes) -> None:
    for key in keys.read(data.decode(errors="replace"), "key.pub"):
        assert keys.read(key.line(), "key.pub") == [key]


def _envelopes(data: bytes) -> None:
    for envelope in dsse.parse(data, "provenance"):
        assert dsse.parse(envelope.line(), "provenance") == [envelope]
        recipe.of(statement.read(envelope, "provenance"))


def _result(data: bytes) -> None:
    try:
        found = result.decode(data)
    except msgspec.MsgspecError:
        return
    assert result.decode(result.encode(found)) == found


_READERS: tuple[Callable[[bytes], None], ...] = (_signature, _list, _keys, _envelopes, _result)


def attempt(data: bytes) -> None:
    """The first byte says which of them it is."""
    try:
        _READERS[data[0] % len(_READERS) if data else 0](data[1:])
    except ConstruirError as error:
        demand_line(str(error).replace("\n", " "))


target = alone(attempt)
