"""`construir image build --snapshot` takes everything from the mirror of snapshots, and the same bytes twice.

The mirror is a stand-in: it sends whoever asks for a time on to the archive as it is now. Only with --all: two builds.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage

TIME = "20260131T000000Z"
BUILD_S = 3600


@contextmanager
def snapshot_mirror(base: BaseImage) -> Iterator[tuple[str, set[str]]]:
    """A server on the loopback, and the places below it that were asked for."""
    urls = [line.split()[1].rstrip("/") for line in base.manifest.sources if line.startswith("deb ")]
    places = {f"/{url.rpartition('/')[2]}/{TIME}/": f"{url}/" for url in urls}
    asked: set[str] = set()

    class SendOn(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = next((place for place in places if self.path.startswith(place)), None)
            asked.add(place or self.path)
            self.send_response(302 if place else 404)
            if place:
                self.send_header("Location", places[place] + self.path.removeprefix(place))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), SendOn) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def build(place: Path, name: str, mirror: str) -> BaseImage:
    config = place / "construir.toml"
    config.write_text(f'[images]\npath = "{place}/images"\nsnapshot_mirror = "{mirror}"\n')
    argv = [sys.executable, "-m", "construir_ftp", "image", "build", name, "--suite=bookworm"]
    argv += [f"--snapshot={TIME}", f"--config={config}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr
    return baseimage.find(place / "images", name)


@pytest.mark.slow("two images are built for this, which takes minutes")
def test_snapshot_is_the_same_byte_for_byte_and_from_nowhere_else(
    request: pytest.FixtureRequest, base: BaseImage, tmp_path: Path
) -> None:
    with snapshot_mirror(base) as (mirror, asked):
        first, second = (build(tmp_path, name, mirror) for name in ("first", "second"))
    assert asked == {f"/debian/{TIME}/", f"/debian-security/{TIME}/"}
    assert first.manifest.parts == second.manifest.parts
    assert first.manifest.snapshot == TIME
    sources = [line.split() for line in first.manifest.sources if line]
    pockets = {(url.removeprefix(mirror), pocket) for _, _, url, pocket, _ in sources}
    assert pockets == {
        (f"/debian/{TIME}", "bookworm"),
        (f"/debian/{TIME}", "bookworm-updates"),
        (f"/debian-security/{TIME}", "bookworm-security"),
    }
