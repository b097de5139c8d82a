"""client.known_keys: a server's key is kept, also where several commands meet the server at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from construir_ftp.client.address import Address
from construir_ftp.client.known_keys import KnownKeys
from construir_ftp.trust.keys import PublicKey

HERE = Address("ftp", "localhost", 2121, "")
FIRST, SECOND = PublicKey(b"1" * 32), PublicKey(b"2" * 32)


def test_a_key_is_kept_beside_those_before(tmp_path: Path) -> None:
    known = KnownKeys(tmp_path)
    for key in (FIRST, SECOND, FIRST):
        known.keep(HERE, [key])
    assert known.of(HERE) == [SECOND, FIRST]
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["localhost_2121"]


def test_commands_that_meet_a_server_at_once_disturb_none_of_them(tmp_path: Path) -> None:
    places = [tmp_path / str(number) for number in range(50)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda place: KnownKeys(place).keep(HERE, [FIRST]), sorted(places * 8)))
    assert [KnownKeys(place).of(HERE) for place in places] == [[FIRST]] * 50
    assert [len(list((place / "keys").iterdir())) for place in places] == [1] * 50
