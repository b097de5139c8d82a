"""How long a client waits for the reply after its last byte: judged while it came, or only then; in every codec.

Against (a) reading the same file once, with SHA-256. Run from the repository:
.venv/bin/python -m tests.bench.verdict [MIB OF IMAGE] [ROUNDS]
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from construir_ftp.diskimage import codec as codecs
from tests import bench
from tests.bench import Row
from tests.support import images
from tests.support.ftpclient import House, serving

_PIECE_BYTES = 2**20
_LONGEST_S = 900
# A file system that is half full of what hardly compresses, and otherwise of what does.
_NOISE_EVERY = 2
# They unpack so slowly that once is enough.
SLOW = ("bzip2", "xz")
AIM = "0.5 s for raw, zstd, gzip; 10 s for all"


def image(place: Path, size_mib: int) -> Path:
    """An ext2 with that much in it."""
    path, content = place / "image", place / "content"
    content.mkdir()
    with (content / "file").open("wb") as file:
        for number in range(size_mib * 9 // 10):
            noise = images.noise(_PIECE_BYTES + number) if number % _NOISE_EVERY else b"text of a kind\n" * 69906
            file.write(noise[:_PIECE_BYTES])
    (content / "run.sh").write_text("#!/bin/sh\n")
    images.run("mke2fs", "-q", "-F", "-t", "ext2", "-d", content, path, f"{size_mib}M")
    (content / "file").unlink()
    return path


def read_s(path: Path) -> float:
    """Seconds to read a file, and digest it."""
    with path.open("rb", buffering=0) as file:
        return bench.timed(lambda: hashlib.file_digest(file, "sha256"))


def reply_s(house: House, path: Path) -> float:
    """Seconds from the last byte of an upload to its reply."""
    with house.connect() as alice:
        alice.socket.settimeout(_LONGEST_S)
        with alice.log_in().begin("/queue/bench.img") as data, path.open("rb") as file:
            data.settimeout(_LONGEST_S)
            while piece := file.read(_PIECE_BYTES):
                data.sendall(piece)
        begun = time.monotonic()
        reply = alice.reply()
        took = time.monotonic() - begun
    if not reply.startswith("226"):
        raise SystemExit(reply)
    for job in house.spool.jobs("queue"):
        house.spool.delete(job)
    return took


def unfollowed(house: House, take: Callable[[], float]) -> Callable[[], float]:
    """The same, judged when all of it is there: no upload is followed meanwhile."""

    def take_unfollowed() -> float:
        judges = house.listener.intake.judges
        most, judges.most_followed = judges.most_followed, 0
        try:
            return take()
        finally:
            judges.most_followed = most

    return take_unfollowed


def main(size_mib: int, rounds: int) -> None:
    with bench.workplace() as place:
        raw = image(place, size_mib)
        with serving(place, max_upload=f"{2 * size_mib}MiB") as house:
            for codec in images.CODECS:
                upload = raw if codec == "raw" else place / codec
                if codec != "raw":
                    codecs.pack(codec, raw, upload, 3600)

                def waited(upload: Path = upload) -> float:
                    return reply_s(house, upload)

                most = 1 if codec in SLOW else rounds
                rows = [
                    Row("(a) reading it once, with SHA-256", lambda upload=upload: read_s(upload)),  # type: ignore[misc]
                    Row("last byte to reply, judged while it came", waited, AIM, most),
                    Row("last byte to reply, judged when it was there", unfollowed(house, waited), "", 1),
                ]
                sent_mib = upload.stat().st_size // 2**20
                bench.print_table(f"{codec}: {size_mib} MiB in {sent_mib} MiB", bench.take_turns(rows, rounds))


if __name__ == "__main__":
    main(*bench.counts(1024, 3))
