"""FileZilla and WinSCP, which have no command line to be run by: what they send is replayed, in their order.

FileZilla 3's order is that of its src/engine/ftp: logon.cpp, cwd.cpp, list.cpp, filetransfer.cpp, rawtransfer.cpp,
delete.cpp. WinSCP's is that of its source/filezilla/FtpControlSocket.cpp: LogOnToServer, List, FileTransfer and
TransferFinished, which sets the time by MDTM where FEAT has no MFMT.
"""

import re
import socket
from collections.abc import Iterable

import pytest

from construir_ftp.jobs.spool import STATES
from tests.support import images
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, wait_until

JOB = images.image("ext2", 2**20)
OTHER = images.image("ext2", 2**20, "-L", "other")
OVER_DATA_CONNECTION = ("STOR", "RETR", "MLSD", "LIST")

_LOGIN = ["USER alice 331", f"PASS {PASSWORD} 230", "SYST 215", "FEAT 211", "OPTS UTF8 ON 200"]
_INTO_QUEUE = ["CWD /queue 250", "PWD 257"]
# Each line ends with the reply's code.
FILEZILLA_LOGIN = ["AUTH TLS 502", "AUTH SSL 502", *_LOGIN, "PWD 257", "TYPE I 200", "PASV 227", "MLSD 226"]
FILEZILLA_LISTS = ["PASV 227", "MLSD 226"]
WINSCP_LOGIN = [*_LOGIN, "PWD 257"]
WINSCP_LISTS = ["TYPE A 200", "PASV 227", "MLSD 226", "TYPE I 200"]
BEGIN = {
    "FileZilla": [*FILEZILLA_LOGIN, *_INTO_QUEUE, *FILEZILLA_LISTS],
    "WinSCP": [*WINSCP_LOGIN, *_INTO_QUEUE, *WINSCP_LISTS],
}
END = {
    "FileZilla": FILEZILLA_LISTS,
    "WinSCP": ["MDTM 20261122104102 greet.img 213", *WINSCP_LISTS],
}
CLIENTS = pytest.mark.parametrize("client", BEGIN)


class Replay(Control):
    """A session that plays what clients send."""

    def __init__(self, house: House) -> None:
        super().__init__(house.server.address)
        assert self.reply().startswith("220")
        self._data: socket.socket | None = None

    def play(self, lines: Iterable[str], content: bytes = b"") -> bytes:
        """Send each line, and check its reply; STOR sends `content`. Returns what the last transfer brought."""
        brought = b""
        for line in lines:
            command, _, code = line.rpartition(" ")
            reply = self.ask(command)
            if command == "PASV":
                self._data = self._connect(reply)
            elif command.startswith(OVER_DATA_CONNECTION):
                assert reply.startswith(("125", "150")), (line, reply)
                brought = self._transfer(content if command.startswith("STOR") else None)
                reply = self.reply()
            assert reply.startswith(code), (line, reply)
        return brought

    def _connect(self, reply: str) -> socket.socket:
        numbers = [int(number) for number in re.findall(r"\d+", reply)]
        host, port = ".".join(map(str, numbers[1:5])), numbers[5] * 256 + numbers[6]
        return socket.create_connection((host, port), LONG_S)

    def _transfer(self, content: bytes | None) -> bytes:
        assert self._data is not None
        with self._data as data, data.makefile("rb") as file:
            if content is None:
                return file.read()
            data.sendall(content)
        return b""


def only_job(house: House) -> bytes:
    (job,) = house.spool.jobs("queue")
    assert (job.record().filename, job.record().contributor) == ("greet.img", "alice")
    return job.upload.read_bytes()


@CLIENTS
def test_job_is_sent_and_is_seen_afterwards(house: House, client: str) -> None:
    with Replay(house) as alice:
        alice.play(BEGIN[client])
        alice.play(["PASV 227", "STOR greet.img 226"], JOB)
        listing = alice.play(END[client]).decode()
        assert f"size={len(JOB)};type=file; greet.img\r\n" in listing
        assert only_job(house) == JOB


@CLIENTS
def test_cut_job_is_continued_at_the_size_that_is_listed(house: House, client: str) -> None:
    with house.connect() as cut, cut.log_in().begin("/queue/greet.img") as data:
        data.sendall(JOB[:400_000])
        wait_until(lambda: "received: 400000\r" in cut.ask("STAT"), "all has arrived")
    wait_until(house.kept, "it is kept")
    with Replay(house) as alice:
        listing = alice.play(BEGIN[client] if client == "FileZilla" else BEGIN[client][:-1]).decode()
        listed = re.search(r"size=(\d+);type=file; greet\.img\r\n", listing)
        assert listed is not None, listing
        kept = int(listed[1])
        alice.play(["TYPE I 200", "PASV 227", f"REST {kept} 350", "STOR greet.img 226"], JOB[kept:])
        assert only_job(house) == JOB
        # FileZilla takes its REST back before the next transfer, whatever it is.
        alice.play(["PASV 227", "REST 0 350", "MLSD 226", "PASV 227", "STOR other.img 226"], OTHER)
    assert len(house.names("queue")) == 2
    assert house.names("incoming") == []


@CLIENTS
def test_job_is_cancelled_by_deleting_it(house: House, client: str) -> None:
    name = {"FileZilla": "greet.img", "WinSCP": "/queue/greet.img"}[client]
    with Replay(house) as alice:
        alice.play(BEGIN[client])
        alice.play(["PASV 227", "STOR greet.img 226"], JOB)
        alice.play([f"DELE {name} 250"])
        assert b"greet.img" not in alice.play(["PASV 227", "MLSD 226"])
    assert house.spool.jobs("queue")[0].is_cancelled()


@CLIENTS
def test_result_is_fetched_and_the_rest_of_one(house: House, client: str) -> None:
    content = images.noise(100_000)
    house.publish("a-job", {"output.log": content})
    with Replay(house) as alice:
        alice.play(BEGIN[client])
        alice.play(["CWD /done/a-job 250", "PWD 257", "MDTM output.log 213"])
        assert alice.play(["PASV 227", "RETR output.log 226"]) == content
        assert alice.play(["PASV 227", "REST 60000 350", "RETR output.log 226"]) == content[60_000:]


def test_winscp_looks_at_one_file_and_changes_its_time_and_mode(house: House) -> None:
    with Replay(house) as alice:
        alice.play(BEGIN["WinSCP"])
        alice.play(["PASV 227", "STOR greet.img 226"], JOB)
        before = alice.ask("MDTM greet.img")
        alice.play(["MLST /queue/greet.img 250", "SITE CHMOD 644 greet.img 200", "MKD /queue/new 257"])
        alice.play(["MDTM 19990101000000 /queue/greet.img 213", "MDTM 19990101000000 /queue/nothing.img 550"])
        assert alice.ask("MDTM greet.img") == before


def test_size_of_what_was_cut_is_told_in_every_mode(house: House) -> None:
    """Python's ftplib and tnftp begin in ASCII mode, and ask for the size to go on from before they change it."""
    with house.connect() as cut, cut.log_in().begin("/queue/greet.img") as data:
        data.sendall(JOB[:1000])
        wait_until(lambda: "received: 1000\r" in cut.ask("STAT"), "all has arrived")
    wait_until(house.kept, "it is kept")
    house.publish("a-job", {"output.log": b"a\nb\n"})
    with house.connect() as alice:
        alice.log_in().ask("TYPE A")
        assert alice.ask("SIZE /queue/greet.img") == "213 999"
        assert alice.ask("SIZE /queue/nothing.img").startswith("550")
        assert alice.ask("SIZE /queue").startswith("550")
        assert alice.ask("SIZE /done/a-job/output.log").startswith("550"), "it would have another size in ASCII mode"


WRITES = (
    *("STOR {}", "APPE {}", "DELE {}", "RNFR {}", "MKD {}", "XMKD {}", "RMD {}", "XRMD {}"),
    *("MFMT 19990101000000 {}", "MDTM 19990101000000 {}", "SITE CHMOD 777 {}", "SITE UTIME 19990101000000 {}"),
)


def test_anyone_only_reads(house: House) -> None:
    result = house.publish("a-job", {"output.log": b"hello"})
    with house.connect() as alice:
        job_id = alice.log_in().store("/queue/wait.img", JOB).split()[4].rstrip(",")
        alice.store("/queue/tmp.x", JOB)
    before = {state: house.names(state) for state in STATES}, (result / "output.log").stat()
    paths = (
        "/queue/wait.img",
        "/queue/tmp.x",
        f"/queue/{job_id}",
        "/queue/x",
        "/done/a-job/output.log",
        "/done/x",
        "/x",
    )
    with house.connect() as anyone, anyone.log_in("anonymous").passive():
        for command in (write.format(path) for write in WRITES for path in paths):
            assert anyone.ask(command).startswith("55"), command
        assert anyone.ask("RNTO /queue/y.img").startswith("503")
    assert ({state: house.names(state) for state in STATES}, (result / "output.log").stat()) == before
    assert not house.spool.jobs("queue")[0].is_cancelled()
