"""What the servers are asked by: curl and lftp as they are, and crowds, which are one process with many connections."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

from tests.bench import timed
from tests.bench.ftp_servers import Server
from tests.support.appliance import NAME, PASSWORD

_LONGEST_S = 120
# Three hundred logins of a tenth of a second of all processors each are half a minute where nothing else is done.
_LONGEST_CROWD_S = 240
# Clients that give up sooner than most: lftp waits for a minute, wget for fifteen.
_GREETING_S = 15
_TRIES = 20
_LFTP = "set net:max-retries 1; set net:timeout 60; set ssl:verify-certificate no; set cmd:fail-exit yes; "
_LFTP_TLS = (
    "set ftp:ssl-allow no; ",
    "set ftp:ssl-force yes; set ftp:ssl-allow-anonymous yes; set ftp:ssl-protect-data yes; ",
)


# -- programs --------------------------------------------------------------------------------------------------


def curl_fetch_s(server: Server, path: str, *, tls: bool = False) -> float:
    """Seconds that curl takes to fetch what is at `path`, as anyone; several files where it has a range, "f[1-9]"."""
    return timed(lambda: _run([*_curl(tls), server.url(path)]))


def curl_list(server: Server, path: str, output: Path = Path(os.devnull)) -> None:
    """Have curl list a directory, as anyone, by MLSD if the server has it."""
    command = "LIST" if server.name == "vsftpd" else "MLSD"
    _run([*_curl(False), "--request", command, "--output", str(output), server.url(path)])


def curl_store_s(server: Server, files: Sequence[Path], *, tls: bool = False) -> float:
    """Seconds that curl takes to send files as the contributor, one after the other, in one session."""
    sources = f"{{{','.join(map(str, files))}}}"
    argv = [*_curl(tls), "--user", f"{NAME}:{PASSWORD}", "--upload-file", sources, server.url(server.inbox)]
    return timed(lambda: _run(argv))


def lftp_fetch_s(server: Server, path: str, *, tls: bool = False) -> float:
    """Seconds that lftp takes to fetch a file, as anyone."""
    return timed(lambda: _run(["lftp", "-c", f"{_LFTP}{_LFTP_TLS[tls]} cat {server.url(path)}"]))


def lftp_store_s(server: Server, files: Sequence[Path], *, tls: bool = False) -> float:
    """Seconds that lftp takes to send files as the contributor, one after the other, in one session."""
    words = f'open -u "{NAME},{PASSWORD}" {server.url("/")}; put -O {server.inbox} {" ".join(map(str, files))}'
    return timed(lambda: _run(["lftp", "-c", f"{_LFTP}{_LFTP_TLS[tls]} {words}"]))


def _curl(tls: bool) -> list[str]:
    return ["curl", "--silent", "--show-error", *(("--ssl-reqd", "--insecure") if tls else ())]


def _run(argv: Sequence[str]) -> None:
    subprocess.run(argv, stdout=subprocess.DEVNULL, timeout=_LONGEST_S, check=True)


# -- crowds ----------------------------------------------------------------------------------------------------


class Session:
    """One of many connections."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, server: Server, name: str = "anonymous", password: str = "nobody@") -> Self:
        """A connection that is logged in."""
        session = await cls._greeted(server)
        if (await session.ask(f"USER {name}", "")).startswith("331"):
            await session.ask(f"PASS {password}", "230")
        return session

    @classmethod
    async def _greeted(cls, server: Server) -> Self:
        """A server whose listen(2) queue was full may know nothing of a connection: after a while, try another."""
        for _ in range(_TRIES):
            session = cls(*await asyncio.open_connection("127.0.0.1", server.port))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(session._expect("2"), _GREETING_S)
                return session
            session.cut()
        raise TimeoutError(f"{server.name} does not answer")

    async def ask(self, line: str, code: str) -> str:
        """Send a line; its reply, which must begin with `code`."""
        self._writer.write(line.encode() + b"\r\n")
        return await self._expect(code)

    async def fetch(self, path: str) -> bytes:
        """A whole file."""
        reader, writer = await self._transfer(f"RETR {path}")
        content = await reader.read(-1)
        writer.close()
        await self._expect("2")
        return content

    async def store(self, path: str, content: bytes) -> None:
        """A whole upload."""
        _, writer = await self._transfer(f"STOR {path}")
        writer.write(content)
        await writer.drain()
        writer.close()
        await self._expect("2")

    async def leave(self) -> None:
        """Say goodbye, and wait for the answer."""
        await self.ask("QUIT", "2")
        self.cut()

    def cut(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _transfer(self, line: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await self.ask("TYPE I", "2")
        port = int((await self.ask("EPSV", "2")).split("|")[3])
        connection = await asyncio.open_connection("127.0.0.1", port)
        await self.ask(line, "1")
        return connection

    async def _expect(self, code: str) -> str:
        line = await self._reader.readline()
        while line[3:4] == b"-":
            line = await self._reader.readline()
        assert line.startswith(code.encode()), line
        return line.decode()


def crowd_s(count: int, visit: Callable[[int], Awaitable[None]], at_once: int = 0) -> float:
    """Seconds that `count` visits take, all at once or so many `at_once`."""

    async def all_of_them() -> None:
        doors = asyncio.Semaphore(at_once or count)

        async def one(number: int) -> None:
            async with doors:
                await visit(number)

        async with asyncio.timeout(_LONGEST_CROWD_S):
            await asyncio.gather(*map(one, range(count)))

    return timed(lambda: asyncio.run(all_of_them()))


def fetch_in_turn_s(server: Server, paths: Sequence[str]) -> float:
    """Seconds to fetch files one after the other, in one session of anyone's."""

    async def work(session: Session) -> None:
        for path in paths:
            assert await session.fetch(path)

    return _session_s(Session.open(server), work)


def store_in_turn_s(server: Server, files: Sequence[Path]) -> float:
    """Seconds to send files one after the other, in one session of the contributor's."""

    async def work(session: Session) -> None:
        for file in files:
            await session.store(f"{server.inbox}{file.name}", file.read_bytes())

    return _session_s(Session.open(server, NAME, PASSWORD), work)


def _session_s(opening: Awaitable[Session], work: Callable[[Session], Awaitable[None]]) -> float:
    """Seconds of work in a session, without its login."""

    async def visit() -> float:
        session = await opening
        begun = time.monotonic()
        await work(session)
        took_s = time.monotonic() - begun
        await session.leave()
        return took_s

    return asyncio.run(visit())


def fetching(server: Server, path: str) -> Callable[[int], Awaitable[None]]:
    """A visit: log in as anyone, fetch a file, leave."""

    async def visit(_: int) -> None:
        session = await Session.open(server)
        assert await session.fetch(path)
        await session.leave()

    return visit


def storing(server: Server, content: bytes) -> Callable[[int], Awaitable[None]]:
    """A visit: log in as the contributor, send a file, leave."""

    async def visit(number: int) -> None:
        session = await Session.open(server, NAME, PASSWORD)
        await session.store(f"{server.inbox}crowd-{number}.img.zst", content)
        await session.leave()

    return visit


def logging_in(server: Server) -> Callable[[int], Awaitable[None]]:
    """A visit: log in as the contributor, leave."""

    async def visit(_: int) -> None:
        await (await Session.open(server, NAME, PASSWORD)).leave()

    return visit


def memory_bytes(server: Server, count: int) -> float:
    """Memory of the server while `count` sessions have logged in as anyone and do nothing."""

    async def measure() -> int:
        sessions = await asyncio.gather(*(Session.open(server) for _ in range(count)))
        await asyncio.sleep(1)
        taken = await asyncio.to_thread(server.memory_bytes)
        for session in sessions:
            await session.leave()
        return taken

    return float(asyncio.run(measure()))
