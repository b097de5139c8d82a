"""A small HTTP server of an archive that can be told to misbehave with what it is asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# What it does with a file: sends a byte of it ten times a second, nothing at all, half of it and then nothing, lines of
# the header without end, or the address of another one that does the same.
HABITS = ("trickles", "is silent", "stops in the middle", "sends headers", "redirects")
_TRICKLE_S = 0.1


class HostileArchive:
    """Serves a directory; `habits` says of some names how they are sent."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.habits: dict[str, str] = {}
        self.asked: list[str] = []
        self.over = threading.Event()
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator["HostileArchive"]:
        """Serve until the context ends, when all connections end, too."""
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                archive.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # clients go away

        with Server(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield self
            finally:
                self.over.set()
                server.shutdown()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        name = request.path.rpartition("/")[2]
        self.asked.append(name)
        file = self.place / name
        habit = self.habits.get(name, self.habits.get("*", ""))
        if habit == "is silent":
            self.over.wait()
        elif habit == "sends headers":
            request.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.over.wait(_TRICKLE_S / 10):
                request.wfile.write(b"X-More: and more\r\n")
        elif habit == "redirects":
            request.send_response(302)
            request.send_header("Location", f"/{len(self.asked)}{request.path}")
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif not file.is_file():
            request.send_error(404)
        else:
            request.send_response(200)
            request.send_header("Content-Length", str(file.stat().st_size))
            request.end_headers()
            self._send(request, file.read_bytes(), habit)

    def _send(self, request: BaseHTTPRequestHandler, content: bytes, habit: str) -> None:
        if habit == "trickles":
            for at in range(len(content)):
                request.wfile.write(content[at : at + 1])
                if self.over.wait(_TRICKLE_S):
                    return
        elif habit == "stops in the middle":
            request.wfile.write(content[: len(content) // 2])
            self.over.wait()
        else:
            request.wfile.write(content)
