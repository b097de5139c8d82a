"""client.fetching: what is brought is what SHA256SUMS says, or it isn't there."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from construir_ftp.client import destination, fetch
from construir_ftp.client.address import Address
from construir_ftp.client.connection import Patience, Remote, plainly
from construir_ftp.client.fetch import Fetch, Item
from construir_ftp.errors import AnswerError, ConstruirError, DamagedError, MissingError, TryLaterError, UsageError
from tests.support import images, smalldisk
from tests.support.cutter import Cutter
from tests.support.fakeserver import FakeServer
from tests.support.ftpclient import House

SOON_S = 0.05  # pauses that are over soon
ID = "20261122T104102Z-7f3a-hello"
MIB = 2**20
FILES = {
    "hello.img.zst": images.noise(3 * MIB),
    "output.log": b"hello\n",
    "console.log": b"",
    "result.json": b"{}",
    "artifacts/out/hello.deb": images.noise(MIB),
    "artifacts/notes.txt": b"notes\n",
}
SUMS = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in FILES.items()).encode()


@pytest.fixture
def published(house: House) -> Path:
    directory = house.publish(ID, {})
    for name, content in {**FILES, "SHA256SUMS": SUMS}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def bring(port: int, directory: Path, *only: str, patience_s: float = 10.0) -> int:
    """Fetch, and say how many bytes were told to have come."""
    server = Remote(Address("ftp", "127.0.0.1", port))
    came: list[int] = []
    with plainly(server.address):
        with server.session() as ftp:
            found = fetch.contents(ftp, ID)
        chosen = fetch.choose(found.items, only, "hello.img.zst")
        Fetch(server, ID, directory, came.append).bring(chosen, lambda: Patience(patience_s, lambda _: None, SOON_S))
    fetch.demand_all(found.refused)
    return sum(came)


def found(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_all_of_a_result_is_brought_as_it_is(house: House, published: Path, tmp_path: Path) -> None:
    told_bytes = bring(house.server.address[1], tmp_path / "r")
    assert found(tmp_path / "r") == {**FILES, "SHA256SUMS": SUMS}
    assert told_bytes == sum(map(len, FILES.values())) + len(SUMS)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["output"], {"output.log"}),
        (["image"], {"hello.img.zst"}),
        (["artifacts"], {"artifacts/out/hello.deb", "artifacts/notes.txt"}),
        (["*.deb", "console"], {"artifacts/out/hello.deb", "console.log"}),
    ],
)
def test_only_what_is_wanted_is_brought(
    house: House, published: Path, tmp_path: Path, only: list[str], names: set[str]
) -> None:
    bring(house.server.address[1], tmp_path / "r", *only)
    assert found(tmp_path / "r").keys() == names


def test_what_nothing_is_called_is_missing_and_what_there_is_is_named(
    house: House, published: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingError, match="it holds hello"):
        bring(house.server.address[1], tmp_path / "r", "*.rpm")


def test_whose_result_a_directory_holds_is_said_by_its_result_json_if_it_is_one(tmp_path: Path) -> None:
    assert destination.owner(tmp_path / "nothing") == ""
    for content, job_id in ((b"{}", ""), (b"[[", ""), (b"\xff", ""), (b'{"id": 7}', ""), (b'{"id": "a", "b": 1}', "a")):
        (tmp_path / "result.json").write_bytes(content)
        assert destination.owner(tmp_path) == job_id
    destination.demand_own(tmp_path, "a")
    with pytest.raises(UsageError, match="holds the result of a; name another place: construir fetch b -o DIR"):
        destination.demand_own(tmp_path, "b")


def test_a_fetch_that_was_cut_goes_on_where_it_ended(house: House, published: Path, tmp_path: Path) -> None:
    with Cutter(house.server.address, cuts=[2 * MIB, MIB // 2, 3 * MIB // 4]) as network:
        bring(network.port, tmp_path / "r")
        assert network.passed_bytes < sum(map(len, FILES.values())) + 2 * MIB
    assert found(tmp_path / "r") == {**FILES, "SHA256SUMS": SUMS}


def test_another_command_continues_and_leaves_alone_what_is_there(
    house: House, published: Path, tmp_path: Path
) -> None:
    place = tmp_path / "r"
    place.mkdir()
    (place / "output.log").write_bytes(FILES["output.log"])
    (place / "output.log").chmod(0o400)
    before = (place / "output.log").stat().st_ino
    (place / ".hello.img.zst.part").write_bytes(FILES["hello.img.zst"][: 2 * MIB])
    with Cutter(house.server.address) as network:
        bring(network.port, place)
        assert network.passed_bytes < 3 * MIB
    assert found(place) == {**FILES, "SHA256SUMS": SUMS}
    assert (place / "output.log").stat().st_ino == before


def test_a_part_of_something_else_is_fetched_again(house: House, published: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/.hello.img.zst.part").write_bytes(b"something else")
    (tmp_path / "r/output.log").write_bytes(b"of another result")
    told_bytes = bring(house.server.address[1], tmp_path / "r")
    assert found(tmp_path / "r") == {**FILES, "SHA256SUMS": SUMS}
    assert told_bytes == sum(map(len, FILES.values())) + len(SUMS)


def test_a_damaged_file_is_refused_and_nothing_of_it_is_left(house: House, published: Path, tmp_path: Path) -> None:
    damaged = bytearray(FILES["hello.img.zst"])
    damaged[MIB] ^= 1
    (published / "hello.img.zst").write_bytes(damaged)
    with pytest.raises(DamagedError, match="is not what SHA256SUMS says") as error:
        bring(house.server.address[1], tmp_path / "r")
    assert error.value.exit_code == 74
    assert not {"hello.img.zst", ".hello.img.zst.part"} & found(tmp_path / "r").keys()


def test_a_disk_that_cant_be_written_is_not_taken_for_the_servers_fault(
    house: House, published: Path, tmp_path: Path
) -> None:
    (tmp_path / "r").write_text("a file is in the way")
    with pytest.raises(ConstruirError, match=r"r.*(Not a directory|File exists)") as error:
        bring(house.server.address[1], tmp_path / "r", patience_s=1000)
    assert error.value.exit_code == 1


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from construir_ftp.client import destination, fetch
from construir_ftp.client.address import Address
from construir_ftp.client.connection import Remote
from construir_ftp.client.fetch import Fetch
from construir_ftp.client.connection import Patience
from construir_ftp.errors import ConstruirError

directory, port, job_id = sys.argv[1:]
server = Remote(Address("ftp", "127.0.0.1", int(port)))
with server.session() as ftp:
    items = fetch.contents(ftp, job_id).items
try:
    Fetch(server, job_id, Path(directory), lambda _: None).bring(items, lambda: Patience(1000, print))
except ConstruirError as error:
    print(error)
"""


def test_a_full_disk_says_so(house: House, published: Path, tmp_path: Path) -> None:
    said = smalldisk.run(tmp_path / "small", MIB, ON_A_FULL_DISK, str(house.server.address[1]), ID)
    assert "No space left on device" in said
    assert said.count("\n") == 1


def test_a_result_that_is_not_there_yet_is_for_later_and_one_that_never_was_is_missing(house: House) -> None:
    server = Remote(Address("ftp", *house.server.address))
    with house.connect() as alice:
        job_id = alice.log_in().store("/queue/x.img", images.image("ext2", MIB)).split()[4].rstrip(",")
    with server.session() as ftp:
        with pytest.raises(TryLaterError, match="construir watch"):
            fetch.contents(ftp, job_id)
        with pytest.raises(MissingError):
            fetch.contents(ftp, ID)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        ".bashrc",
        "artifacts/.ssh/authorized_keys",
        "a//b",
        "a\\..\\b",
        "c:x",
        "x\x1b[2J",
        "x\u202ey",
        "x\x85y",
        "x\ry",
        "x" * 600,
        "artifacts/CON",
        "artifacts/NUL.txt",
        "artifacts/aux/x",
        "artifacts/COM1",
        "artifacts/lpt1.log",
        "artifacts/x.",
        "artifacts/x ",
        "artifacts/x:stream",
        "artifacts/x?",
        "sha256sums",
        "OUTPUT.LOG",
        "output.log/x",
        "output.log",
    ],
)
def test_a_name_that_leads_elsewhere_is_left_out_and_named_and_the_rest_comes(name: str, tmp_path: Path) -> None:
    sums = f"{hashlib.sha256(b'hello').hexdigest()}  output.log\n{'0' * 64}  {name}\n".encode()
    files = {f"/done/{ID}/SHA256SUMS": sums, f"/done/{ID}/output.log": b"hello", f"/done/{ID}/{name}": b"evil"}
    files[f"/done/{ID}/output.log"] = b"hello"
    with FakeServer(files=files) as server, pytest.raises(AnswerError, match="the rest has come") as error:
        bring(server.port, tmp_path / "r")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400
    assert found(tmp_path) == {"r/output.log": b"hello", "r/SHA256SUMS": sums}


def test_a_thousand_names_that_cant_be_used_are_told_in_one_line(tmp_path: Path) -> None:
    sums = "".join(f"{'0' * 64}  artifacts/{number}:x\n" for number in range(1000)).encode()
    with FakeServer(files={f"/done/{ID}/SHA256SUMS": sums}) as server, pytest.raises(AnswerError, match="and 995 more"):
        bring(server.port, tmp_path / "r")


def test_a_line_that_is_no_digest_and_name_makes_no_sense(tmp_path: Path) -> None:
    with FakeServer(files={f"/done/{ID}/SHA256SUMS": b"x\x1b\n"}) as server, pytest.raises(AnswerError) as error:
        bring(server.port, tmp_path / "r")
    assert str(error.value).isprintable()
    assert not (tmp_path / "r").exists()


def sized(size_bytes: int) -> Callable[[bytes], Item]:
    return lambda content: Item("x", hashlib.sha256(content).hexdigest(), size_bytes)


def test_a_file_that_never_ends_is_not_followed_for_ever(tmp_path: Path) -> None:
    server = Remote(Address("ftp", "127.0.0.1", 0))
    with FakeServer(files={f"/done/{ID}/x": images.noise(4 * MIB)}) as fake:
        server = Remote(Address("ftp", "127.0.0.1", fake.port))
        with pytest.raises(DamagedError, match="longer than the server said"):
            Fetch(server, ID, tmp_path, lambda _: None).bring(
                [sized(MIB)(b"x")], lambda: Patience(0, lambda _: None, SOON_S)
            )
    assert (tmp_path / ".x.part").stat().st_size <= MIB
