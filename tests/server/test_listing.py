"""listing, lines, browsing: what a directory's listing says, and that nobody waits for another's."""

import ftplib
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyftpdlib.filesystems import AbstractedFS
from pyftpdlib.ioloop import IOLoop

from construir_ftp.ftp.ioloop import Background, Bell
from construir_ftp.ftp.vfs import listing_lines
from construir_ftp.ftp.vfs.listing import ListingError, Listings, Reader
from construir_ftp.jobs.spool import Spool
from tests.support import tlsclient
from tests.support.ftpclient import Control, House, serving, wait_until

FORMS = ("LIST", "NLST", "MLSD")
ENTRIES = 20_000
# Together more than two sockets hold (tcp(7): 4 MB by default, less for a window this small).
LONG_NAME = "x" * 240
SMALL_WINDOW = 4096


def result(number: int) -> str:
    return f"20261122T104102Z-{number:06x}-{LONG_NAME}"[:255]


RESULTS = [result(number) for number in range(ENTRIES)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with very many entries; made once, since it takes a while."""
    path = tmp_path_factory.mktemp("results")
    for name in RESULTS:
        (path / name).touch()
    return path


@pytest.fixture
def full(house: House, results: Path) -> Iterator[House]:
    """A server with very many results, none of which it has looked at yet."""
    house.listener.bell.call(house.listener.read_ahead.close)
    done = house.spool.state("done")
    done.rmdir()
    results.rename(done)
    yield house
    done.rename(results)


@contextmanager
def browsing(house: House) -> Iterator[Control]:
    with house.connect() as control:
        yield control.log_in("anonymous")


def begin(control: Control, command: str) -> socket.socket:
    """Ask for a listing over a data connection that takes little at a time; nothing of it is read yet."""
    port = int(control.ask("EPSV").split("|")[3])
    data = socket.socket()
    data.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
    data.connect((control.socket.getpeername()[0], port))
    assert control.ask(command).startswith(("125", "150"))
    return data


def rest(data: socket.socket) -> bytes:
    with data, data.makefile("rb") as file:
        return file.read()


def names(listing: bytes) -> list[str]:
    return [line.split()[-1] for line in listing.decode().splitlines()]


# -- what a line says ------------------------------------------------------------------------------------------


class Theirs(AbstractedFS):  # type: ignore[misc] # pyftpdlib is untyped
    """pyftpdlib's own idea of a listing, of one entry."""

    def __init__(self, status: os.stat_result) -> None:
        super().__init__("/", SimpleNamespace(use_gmt_times=True, encoding="utf8", unicode_errors="replace"))
        self.lstat = self.stat = lambda path: status
        self.get_user_by_uid = self.get_group_by_gid = lambda number: "construir"


def status_of(mode: int, size: int, mtime_ns: int) -> os.stat_result:
    seconds, digits = mtime_ns // 10**9, {"st_mtime": mtime_ns / 1e9, "st_mtime_ns": mtime_ns}
    return os.stat_result((mode, 1, 1, 2, 0, 0, size, 0, seconds, 0), digits)


@given(
    mode=st.sampled_from([stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFREG]),
    size=st.integers(0, 2**50),
    mtime_ns=st.integers(-(10**18), 4 * 10**18),
    name=st.text(st.characters(exclude_characters="/\0"), min_size=1),
    facts=st.sets(st.sampled_from(["type", "size", "modify"])),
)
def test_lines_are_those_of_pyftpdlib(mode: int, size: int, mtime_ns: int, name: str, facts: set[str]) -> None:
    status = status_of(mode, size, mtime_ns)
    entry, theirs = SimpleNamespace(name=name, stat=lambda: status), Theirs(status)
    assert listing_lines.mlsd(facts)(entry) == b"".join(theirs.format_mlsx("/", [name], "elr", facts))
    assert listing_lines.short(entry) == f"{name}\r\n".encode(errors="replace")


@given(mtime_s=st.integers(0, 2**32), size=st.integers(0, 2**50), links=st.integers(1, 5000))
def test_long_lines_are_those_of_pyftpdlib(mtime_s: int, size: int, links: int) -> None:
    fields = (stat.S_IFDIR | 0o755, 1, 1, links, 0, 0, size, 0, mtime_s, 0)
    status = os.stat_result(fields, {"st_mtime": float(mtime_s), "st_mtime_ns": mtime_s * 10**9})
    theirs = b"".join(Theirs(status).format_list("/", ["a job"]))
    assert listing_lines.long(time.time())(SimpleNamespace(name="a job", stat=lambda: status)) == theirs


@given(st.lists(st.text(min_size=1), max_size=40), st.integers(1, 10), st.data())
def test_runs_are_in_order_and_nothing_is_lost(there: list[str], run: int, data: st.DataObject) -> None:
    entries: list[SimpleNamespace | None] = [SimpleNamespace(name=name, stat=None) for name in there]
    for at in data.draw(st.lists(st.integers(0, len(there)), max_size=5)):
        entries.insert(at, None)
    shown = [line for line in listing_lines.in_order(entries, listing_lines.short, run) if line]
    expected = [name for first in range(0, len(there), run) for name in sorted(there[first : first + run])]
    assert shown == [f"{name}\r\n".encode(errors="replace") for name in expected]


class Watched:
    """An entry that counts how often it is looked at."""

    def __init__(self, name: str) -> None:
        self.name, self.looks = name, 0

    def stat(self) -> os.stat_result:
        self.looks += 1
        return status_of(stat.S_IFDIR | 0o755, 4096, 1_796_000_000 * 10**9 + len(self.name))


@given(
    before=st.lists(st.from_regex("[A-Za-z0-9._ -]{1,9}", fullmatch=True), unique=True),
    after=st.lists(st.from_regex("[A-Za-z0-9._ -]{1,9}", fullmatch=True), unique=True),
    facts=st.sets(st.sampled_from(["type", "size", "modify"])),
    piece=st.integers(1, 5),
    data=st.data(),
)
def test_a_former_listing_in_whatever_order_changes_no_line(
    before: list[str], after: list[str], facts: set[str], piece: int, data: st.DataObject
) -> None:
    line = listing_lines.mlsd(facts)
    after = data.draw(st.permutations([*after, *before[::2]])) if before else after
    said = [line(Watched(name)) for name in before]
    former = deque(b"".join(said[first : first + piece]) for first in range(0, len(said), piece))
    entries = [Watched(name) for name in dict.fromkeys(after)]
    listed = list(listing_lines.as_they_come(entries, listing_lines.remembering(line, former)))
    assert listed == [line(Watched(entry.name)) for entry in entries]
    assert {entry.name for entry in entries if entry.looks} >= {entry.name for entry in entries} - {*before}


# -- small directories -----------------------------------------------------------------------------------------


def test_odd_names_are_listed_as_they_are(house: House) -> None:
    odd = [b"with space", b"-rf", b"tab\there", "gr\u00fc\u00df".encode(), b"\xff\xfe", b"a;b=c", b"*?[", b"~"]
    directory = house.publish("a-job", {})
    for name in odd:
        Path(os.fsdecode(bytes(directory) + b"/" + name)).write_bytes(b"123")
    # What isn't UTF-8 is shown with question marks, one for each byte.
    shown = sorted(b"??" if name == b"\xff\xfe" else name for name in odd)
    with browsing(house) as anyone:
        assert sorted(anyone.fetch("NLST /done/a-job").split(b"\r\n")[:-1]) == shown
        facts = anyone.fetch("MLSD /done/a-job").split(b"\r\n")[:-1]
        assert sorted(line.partition(b"; ")[2] for line in facts) == shown
        assert all(b";size=3;type=file; " in line for line in facts)
        long = anyone.fetch("LIST /done/a-job").split(b"\r\n")[:-1]
        assert sorted(line.partition(b":")[2][3:] for line in long) == shown


def test_a_file_is_listed_alone_and_what_is_missing_is_refused(house: House) -> None:
    house.publish("a-job", {"output.log": b"hello\n"})
    with browsing(house) as anyone:
        assert anyone.fetch("NLST /done/a-job/output.log") == b"output.log\r\n"
        assert names(anyone.fetch("LIST /done/a-job/output.log")) == ["output.log"]
        with anyone.passive():
            assert anyone.ask("MLSD /done/a-job/output.log").startswith("501")
            for command in ("LIST", "NLST"):
                assert anyone.ask(f"{command} /done/nothing") == "550 No such file or directory."
            assert anyone.ask("MLSD /done/nothing").startswith("501")
            assert anyone.ask("STAT /done/nothing") == "550 No such file or directory."


def test_an_empty_directory_is_an_empty_listing(house: House) -> None:
    house.publish("a-job", {})
    with browsing(house) as anyone:
        assert [anyone.fetch(f"{form} /done/a-job") for form in FORMS] == [b"", b"", b""]


@pytest.mark.parametrize("options", ["-a", "-la", "-lat", "-R", "-l -a", "-1", "-LaF", "--", "-a --"])
@pytest.mark.parametrize("form", ["LIST", "NLST", "STAT"])
def test_options_are_options_whatever_letters(house: House, form: str, options: str) -> None:
    house.publish("a-job", {"b": b"1", "a": b"22"})
    with browsing(house) as anyone:
        anyone.ask("CWD /done/a-job")
        for path in ("", " .", " /done/a-job", " ../a-job/"):
            if form == "STAT":
                listed = "\n".join(anyone.ask(f"STAT {options}{path}").split("\r\n")[1:-1]).encode()
            else:
                listed = anyone.fetch(f"{form} {options}{path}")
            assert names(listed) == ["a", "b"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["b.log", "c.log", "readme"]),
        ("*.log", ["b.log", "c.log"]),
        ("-a ?.log", ["b.log", "c.log"]),
        ("[bx].*", ["b.log"]),
        ("*.nothing", []),
        ("/done/a-job/*.log", ["/done/a-job/b.log", "/done/a-job/c.log"]),
        ("../a-job/r*", ["../a-job/readme"]),
        ("/d*", ["/done"]),
    ],
)
def test_names_that_match_a_pattern_are_listed_as_they_can_be_fetched(
    house: House, pattern: str, found: list[str]
) -> None:
    house.publish("a-job", {"c.log": b"1", "b.log": b"22", "readme": b"333"})
    with browsing(house) as anyone:
        anyone.ask("CWD /done/a-job")
        assert names(anyone.fetch(f"NLST {pattern}")) == found
        assert names(anyone.fetch(f"LIST {pattern}")) == found
        assert all(anyone.fetch(f"RETR {name}") for name in found if "log" in name)


def test_pattern_of_what_is_no_directory_is_refused_and_a_file_called_so_is_listed(house: House) -> None:
    house.publish("a-job", {"[x]*": b"1", "x": b"22"})
    with browsing(house) as anyone:
        assert names(anyone.fetch("NLST /done/a-job/[x]*")) == ["[x]*"]
        with anyone.passive():
            for path in ("/done/nothing/*", "/done/a-job/x/*", "/done/" + "*a" * 1000):
                assert anyone.ask(f"NLST {path}").startswith("550"), path
        pattern = "/done/a-job/" + "*x" * 16
        assert anyone.fetch(f"NLST {pattern}") == b""


def test_pattern_that_would_be_long_sought_is_a_name(house: House) -> None:
    house.publish("a-job", {"a" * 40: b"1", "b*" * 20: b"2"})
    with browsing(house) as anyone:
        anyone.ask("CWD /done/a-job")
        for pattern in ("a*" * 16, "[a]" * 16 + "?" * 24, "[a]*" * 8):
            assert names(anyone.fetch(f"NLST {pattern}")) == ["a" * 40], pattern
        for pattern in ("a*" * 17, "[a]" * 17 + "?" * 23, "[a]*" * 9):
            with anyone.passive():
                assert anyone.ask(f"NLST {pattern}").startswith("550"), pattern
            assert anyone.ask(f"STAT {pattern}").startswith("550"), pattern
        assert names(anyone.fetch(f"NLST {'b*' * 20}")) == ["b*" * 20]


def test_queue_is_listed_by_patterns(house: House) -> None:
    with house.connect() as alice:
        alice.log_in().store("/queue/x.part", b"x")
        assert alice.fetch("NLST /queue/*.part") == b"/queue/x.part\r\n"
        assert alice.fetch("NLST /queue/*.img") == b""


def test_stat_lists_over_the_control_connection(house: House) -> None:
    house.publish("a-job", {"b": b"1", "a": b"22"})
    with browsing(house) as anyone:
        first, *listed, last = anyone.ask("STAT /done/a-job").split("\r\n")
        assert (first, last) == ('213-Status of "/done/a-job":', "213 End of status.")
        assert [line.split()[-1] for line in listed] == ["a", "b"]
        assert anyone.ask("STAT").startswith("211")


# -- large ones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_one_of_many_results_is_listed(full: House, form: str) -> None:
    with browsing(full) as anyone:
        fresh = anyone.fetch(f"{form} /done")
        assert sorted(names(fresh)) == RESULTS
        assert anyone.fetch(f"{form} /done") == fresh


def test_stat_refuses_what_cannot_be_said_in_one_breath(full: House) -> None:
    with browsing(full) as anyone:
        assert anyone.ask("STAT /done").startswith("450")


def test_what_is_passed_over_is_read_in_pieces_as_well(full: House) -> None:
    with browsing(full) as anyone:
        assert anyone.fetch("NLST /done/nothing*") == b""
        assert anyone.fetch("LIST /done/*nothing") == b""
        last = f"{RESULTS[-1].split('x')[0]}*"
        assert anyone.fetch(f"NLST /done/{last}") == f"/done/{RESULTS[-1]}\r\n".encode()
        for path in ("/done/nothing*", "/done/*[x]*nothing", f"/done/{last}"):
            assert anyone.ask(f"STAT {path}").startswith("450"), path


def test_what_is_not_shown_is_read_in_pieces_as_well(house: House) -> None:
    directory = house.publish("a-job", {"file": b"1"})
    for number in range(ENTRIES):
        os.mknod(directory / f".{number}")
    with browsing(house) as anyone:
        assert [names(anyone.fetch(f"{form} /done/a-job")) for form in FORMS] == [["file"]] * len(FORMS)
        assert anyone.ask("STAT /done/a-job").startswith("450")


def test_results_that_come_and_go_hide_no_other(house: House) -> None:
    done, stays = house.spool.state("done"), [f"stays-{number:04}" for number in range(3000)]
    for name in stays:
        (done / name).mkdir()
    is_over = threading.Event()

    def churn() -> None:
        for number in range(10**9):
            (done / f"new-{number}").mkdir()
            if number % 2:
                (done / f"new-{number}").rmdir()
            if is_over.is_set():
                return

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        with browsing(house) as anyone:
            for form in FORMS * 3:
                listed = names(anyone.fetch(f"{form} /done"))
                assert sorted(name for name in listed if name.startswith("stays")) == stays
                assert len(set(listed)) == len(listed)
    finally:
        is_over.set()
        churning.join()


def test_a_listing_is_never_older_than_the_question(house: House) -> None:
    done = house.spool.state("done")
    for number in range(3000):
        (done / f"old-{number}").touch()
    with browsing(house) as anyone:
        for number in range(20):
            (done / f"new-{number}").mkdir()
            assert f"new-{number}" in names(anyone.fetch("NLST /done"))
            (done / f"old-{number}").unlink()
            assert f"old-{number}" not in names(anyone.fetch("MLSD /done"))


def test_one_who_does_not_read_keeps_nobody_waiting(full: House) -> None:
    with browsing(full) as slow, browsing(full) as quick:
        for form in FORMS:
            data = begin(slow, f"{form} /done")
            assert quick.ask("NOOP").startswith("200")
            assert sorted(names(quick.fetch(f"{form} /done"))) == RESULTS
            assert sorted(names(rest(data))) == RESULTS
            assert slow.reply().startswith("226")


@pytest.mark.parametrize("form", FORMS)
def test_a_listing_can_be_aborted_and_the_session_goes_on(full: House, form: str) -> None:
    with browsing(full) as anyone:
        data = begin(anyone, f"{form} /done")
        assert anyone.ask("ABOR").startswith("426")
        assert anyone.reply().startswith("226")
        assert len(rest(data)) < ENTRIES * 255
        assert sorted(names(anyone.fetch(f"{form} /done"))) == RESULTS


def test_results_that_the_server_has_found_are_read_before_anyone_asks_and_kept(tmp_path: Path, results: Path) -> None:
    done = Spool.prepare(tmp_path / "spool").state("done")
    done.rmdir()
    results.rename(done)
    try:
        with serving(tmp_path) as house:
            listings = house.listener.listings
            wait_until(lambda: any(listing.is_complete for listing in listings._shared), "all of it is read")
            (kept,) = listings._shared
            listings._kept_s = 0.0
            house.listener.bell.call(listings._sweep)
            with browsing(house) as anyone:
                assert sorted(names(anyone.fetch("MLSD /done"))) == RESULTS
            assert listings._shared == [kept]
    finally:
        done.rename(results)


def test_clients_that_vanish_leave_nothing_open(full: House) -> None:
    for form in FORMS * 3:
        with browsing(full) as anyone:
            begin(anyone, f"{form} /done").close()
    wait_until(lambda: not full.listener.sessions, "every session is forgotten")
    assert full.listener.listings.size_bytes == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_listing_that_is_larger_than_all_that_is_kept_is_sent_whole(full: House, form: str) -> None:
    listings = full.listener.listings
    listings._most_bytes = 100_000
    with browsing(full) as anyone:
        data = begin(anyone, f"{form} /done")
        assert sorted(names(rest(data))) == RESULTS
        assert anyone.reply().startswith("226")
        assert listings.size_bytes <= 100_000


def test_who_is_too_slow_for_what_is_kept_is_told_so(full: House) -> None:
    full.listener.listings._most_bytes = 3_000_000
    with browsing(full) as slow, browsing(full) as quick:
        data = begin(slow, "MLSD /done")
        assert sorted(names(quick.fetch("MLSD /done"))) == RESULTS
        assert len(rest(data)) < ENTRIES * 240
        assert slow.reply().startswith("426 Too slow")
        assert sorted(names(slow.fetch("MLSD /done"))) == RESULTS


@pytest.mark.parametrize("form", FORMS)
def test_every_result_is_listed_over_tls(tmp_path: Path, results: Path, form: str) -> None:
    files = tlsclient.make_certificate(tmp_path)
    with serving(tmp_path, tls=tlsclient.tls_section(files)) as house:
        done = house.spool.state("done")
        done.rmdir()
        results.rename(done)
        try:
            with tlsclient.TlsControl(house.server.address, tlsclient.strict_context(files[0])) as anyone:
                assert anyone.reply().startswith("220")
                anyone.protect()
                assert anyone.ask("USER anonymous").startswith("331")
                assert anyone.ask("PASS x").startswith("230")
                assert sorted(names(anyone.fetch(f"{form} /done"))) == RESULTS
        finally:
            done.rename(results)


def test_the_standard_library_lists_everything(full: House) -> None:
    with full.client("anonymous") as client:
        assert sorted(name for name, _ in client.mlsd("/done")) == RESULTS
        long: list[str] = []
        client.dir("/done", long.append)
        assert len(long) == ENTRIES
        with pytest.raises(ftplib.error_perm):
            client.nlst("/queue")


@contextmanager
def looked_at(log: Path) -> Iterator[list[str]]:
    """The results whose status this process asks the kernel for, while the context lasts."""
    looked: list[str] = []
    calls = ["-e", "trace=newfstatat,statx,lstat", "-p", str(os.getpid())]
    with subprocess.Popen(["strace", "-f", "-s", "300", "-o", log, *calls], stderr=subprocess.DEVNULL) as tracer:
        wait_until(lambda: "TracerPid:\t0" not in Path("/proc/self/status").read_text(), "it is traced")
        yield looked
        tracer.send_signal(signal.SIGINT)
    names = (found[1] for found in re.finditer(r'stat(?:at|x)?\((?:\d+, )?"([^"]+)"', log.read_text()))
    looked += [name for name in names if name in {*RESULTS, "new"}]


def test_after_a_change_only_what_is_new_is_looked_at(full: House, tmp_path: Path) -> None:
    done = full.spool.state("done")
    with browsing(full) as anyone:
        threading.Event().wait(0.2)  # see _SETTLED_NS
        with looked_at(tmp_path / "first") as looked:
            first = anyone.fetch("MLSD /done")
        assert sorted(looked) == RESULTS
        (done / "new").mkdir()
        (done / RESULTS[7]).unlink()
        threading.Event().wait(0.2)
        try:
            with looked_at(tmp_path / "again") as looked:
                again = anyone.fetch("MLSD /done")
        finally:
            (done / RESULTS[7]).touch()
            (done / "new").rmdir()
    assert looked == ["new"]
    gone = {line for line in first.splitlines() if line.endswith(RESULTS[7].encode())}
    assert {line for line in again.splitlines() if not line.endswith(b" new")} == {*first.splitlines()} - gone
    assert len(again.splitlines()) == ENTRIES


# -- pieces ----------------------------------------------------------------------------------------------------


class Loop:
    """An event loop, turned by hand, and listings that are read beside it."""

    def __init__(self, **settings: float) -> None:
        self.ioloop = IOLoop()
        self.bell = Bell(self.ioloop)
        self.background = Background(self.bell)
        self.listings = Listings(self.background, self.ioloop, **settings)  # type: ignore[arg-type]
        self.rounds = 0

    def turn(self) -> None:
        """Let the loop go round once, and count it."""
        self.bell.call(lambda: None)
        self.ioloop.loop(blocking=False)
        self.rounds += 1

    def turn_until(self, done: Callable[[], object], what: str) -> None:
        """Let the loop go round until something is done."""

        def is_done() -> object:
            self.turn()
            return done()

        wait_until(is_done, what)

    def piece(self, reader: Reader) -> bytes:
        """A reader's next piece, as a data connection gets it."""
        if not reader.is_ready():
            reader.wait(lambda: None)
        self.turn_until(reader.is_ready, "the next piece")
        return reader.more()

    def pieces(self, reader: Reader) -> Iterator[bytes]:
        while piece := self.piece(reader):
            yield piece
        reader.close()


@contextmanager
def looping(**settings: float) -> Iterator[Loop]:
    loop = Loop(**settings)
    yield loop
    loop.listings.close()
    loop.background.close()
    loop.ioloop.close()


LINE = b"x" * 1000
LINES = 1000


def many(_former: deque[bytes], count: int = LINES) -> Generator[bytes, None, None]:
    yield from [LINE] * count


def test_loop_goes_round_between_pieces_and_reading_does_not_run_ahead() -> None:
    read = 0

    def counted(former: deque[bytes]) -> Generator[bytes, None, None]:
        nonlocal read
        for line in many(former):
            read += 1
            yield line

    with looping() as loop:
        reader, taken = loop.listings.open("/", None, counted), 0
        for piece in loop.pieces(reader):
            taken += len(piece) // len(LINE)
            assert len(piece) < 70_000
            assert read <= taken + 70, "one piece ahead"
        assert taken == LINES
        assert loop.rounds >= LINES // 70, "the loop was free after each piece"


def test_a_listing_that_has_no_line_yet_keeps_no_other_waiting() -> None:
    is_over = threading.Event()

    def silent(_former: deque[bytes]) -> Generator[bytes, None, None]:
        while not is_over.is_set():
            yield b""
        yield LINE

    with looping() as loop:
        reader, other = loop.listings.open("/", None, silent), loop.listings.open("/other", None, many)
        reader.wait(lambda: None)
        assert b"".join(loop.pieces(other)) == LINE * LINES
        assert not reader.is_ready()
        is_over.set()
        assert b"".join(loop.pieces(reader)) == LINE


def test_kept_listings_are_read_once_and_stay_within_their_bound() -> None:
    begun = 0

    def counted(former: deque[bytes]) -> Generator[bytes, None, None]:
        nonlocal begun
        begun += 1
        yield from many(former)

    with looping(most_bytes=2_500_000) as loop:
        for place in range(5):
            for _ in range(3):
                reader = loop.listings.open("/", (place, 0), counted)
                assert b"".join(loop.pieces(reader)) == LINE * LINES
                assert loop.listings.size_bytes <= 2_500_000
        assert begun == 5
        assert loop.listings.size_bytes == 2_000_000


def test_a_changed_directory_takes_the_place_of_its_former_listing() -> None:
    with looping() as loop:
        for changed in range(5):
            assert b"".join(loop.pieces(loop.listings.open("/", ("done", changed), many))) == LINE * LINES
            assert loop.listings.size_bytes == LINES * len(LINE)


def test_kept_listings_are_thrown_away_after_a_while() -> None:
    with looping(kept_s=1.0) as loop:
        assert b"".join(loop.pieces(loop.listings.open("/", ("done", 0), many))) == LINE * LINES
        loop.turn_until(lambda: not loop.listings.size_bytes, "it is thrown away")


def test_a_listing_nobody_reads_to_its_end_is_let_go() -> None:
    ended = threading.Event()

    def watched(former: deque[bytes]) -> Generator[bytes, None, None]:
        try:
            yield from many(former)
        finally:
            ended.set()

    with looping() as loop:
        reader = loop.listings.open("/", ("done", 0), watched)
        loop.piece(reader)
        reader.close()
        loop.turn_until(ended.is_set, "the directory is closed")
        assert loop.listings.size_bytes == 0


def test_a_directory_that_cannot_be_read_to_its_end_is_no_complete_listing() -> None:
    def broken(former: deque[bytes]) -> Generator[bytes, None, None]:
        yield from many(former, 200)
        raise OSError(5, "Input/output error")

    with looping() as loop:
        reader = loop.listings.open("/", ("done", 0), broken)
        with pytest.raises(ListingError, match="451 The directory"):
            for _ in loop.pieces(reader):
                pass
        reader.close()
        assert loop.listings.size_bytes == 0
