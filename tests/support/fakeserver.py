"""An FTP server that says what it is told to say: for what no server of ours would ever say."""

import contextlib
import socket
import threading
from typing import Self

from tests.support.ftpclient import LONG_S


class FakeServer:
    """Answers one session at a time. `files` can be fetched, by their paths; `stor` is the reply to an upload."""

    def __init__(
        self, *, greeting: str = "220 Hello", stor: str = "", status: str = "", files: dict[str, bytes] | None = None
    ) -> None:
        self._greeting, self._stor, self._status = greeting, stor, status
        self._files = {"/status.json": b"{}", **(files or {})}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(LONG_S)
                with client, contextlib.suppress(ConnectionError), client.makefile("rwb", buffering=0) as lines:
                    self._session(lines)

    def _session(self, lines: "socket.SocketIO") -> None:
        def say(text: str) -> None:
            lines.write(text.encode() + b"\r\n")

        say(self._greeting)
        data = socket.create_server(("127.0.0.1", 0))
        with data:
            while line := lines.readline():
                command, _, argument = line.decode().strip().partition(" ")
                match command.upper():
                    case "USER":
                        say("331 Who?")
                    case "PASS":
                        say("230 Welcome")
                    case "PASV":
                        high, low = divmod(data.getsockname()[1], 256)
                        say(f"227 Here (127,0,0,1,{high},{low})")
                    case "SIZE" if argument in self._files:
                        say(f"213 {len(self._files[argument])}")
                    case "RETR" | "NLST" if argument in self._files:
                        say("150 Here it comes")
                        with data.accept()[0] as connection:
                            connection.sendall(self._files[argument])
                        say("226 That was it")
                    case "STOR":
                        say("150 Send it")
                        with data.accept()[0] as connection:
                            while connection.recv(65536):
                                pass
                        say(self._stor)
                    case "SITE" if self._status:
                        say(self._status)
                    case "TYPE" | "QUIT":
                        say("200 Yes")
                    case _:
                        say("550 No")
