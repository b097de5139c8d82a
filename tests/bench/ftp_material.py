"""What is sent to the FTP servers and fetched from them: made once, the same for all of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.ftp_peers import Place
from tests.support import images

RESULTS = 100_000
SMALL_FILES = 200
SMALL_BYTES = 4096
# The rest is for the tables of the file system.
_CONTENT = 0.95
_TIGHT = ("-O", "^has_journal", "-m", "0", "-N", "16")


@dataclass(frozen=True)
class Material:
    """Files to send, and the paths of what is to be fetched."""

    large: Path
    small: Sequence[Path]
    large_path: str = "/done/bench/large.img"
    small_path: str = "/done/bench/small"


def prepare(place: Place, size_bytes: int, stores: int) -> Material:
    """A large job and `stores` small ones to send; files of both sizes to fetch, in one result."""
    sent, result = place.path / "sent", place.spool / "done" / "bench"
    sent.mkdir()
    result.mkdir()
    large = sent / "large.img"
    _make_image(large, size_bytes, int(size_bytes * _CONTENT))
    (result / "large.img").hardlink_to(large)
    for number in range(SMALL_FILES):
        (result / f"small{number}").write_bytes(os.urandom(SMALL_BYTES))
    first = sent / "small.img.zst"
    _make_small(first)
    small = [sent / f"small{number}.img.zst" for number in range(stores)]
    for path in small:
        path.hardlink_to(first)
    return Material(large, small)


def add_results(place: Place) -> None:
    """As many results as a directory might have."""
    done = place.spool / "done"
    for number in range(RESULTS):
        (done / f"20261122T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-{number:06x}-hello").mkdir()


def _make_small(path: Path) -> None:
    """A job of SMALL_BYTES or a little less."""
    image = path.with_name("small.img")
    _make_image(image, 256 * images.KIB, SMALL_BYTES - 1024)
    path.write_bytes(images.pack("zstd", image.read_bytes()))
    image.unlink()
    assert SMALL_BYTES // 2 < path.stat().st_size <= SMALL_BYTES, path.stat().st_size


def _make_image(path: Path, size_bytes: int, noise_bytes: int) -> None:
    """A job as a raw ext image, with noise in it, which no compression makes quicker."""
    job = images.job_directory(path.with_name(f"{path.name}.d"))
    with (job / "noise").open("wb") as file:
        for left in range(noise_bytes, 0, -images.MIB):
            file.write(os.urandom(min(left, images.MIB)))
    kind = "ext4" if size_bytes >= 16 * images.MIB else "ext2"
    images.run("mke2fs", "-q", "-F", "-t", kind, *_TIGHT, "-d", job, path, f"{size_bytes // images.KIB}k")
    images.run("rm", "-r", job)
