"""What overlayfs notes is found in a tar file however that comes in pieces; garbage passes, for others to refuse."""

import io
import random
import tarfile
from collections.abc import Iterator

import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.layers import marks

RENAMED = {"SCHILY.xattr.trusted.overlay.redirect": "/share/old"}
OPAQUE = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
LONG = "usr/" + "long/" * 60 + "end"


def packed(*entries: tuple[str, dict[str, str], bytes | None]) -> bytes:
    """A tar file of directories, and of files where there is content."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, attributes, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            entry.pax_headers = attributes
            tar.addfile(entry, io.BytesIO(content or b""))
    return target.getvalue()


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    random_ = random.Random(seed)
    while data:
        size = random_.choice((1, 7, 512, 700, 4096, 70_000))
        yield data[:size]
        data = data[size:]


def passed(data: bytes, *below: bytes, seed: int = 1) -> bytes:
    return b"".join(marks.demand_none_needed(pieces(data, seed), set(below).__contains__))


@pytest.mark.parametrize("seed", range(5))
def test_what_needs_no_attribute_passes_as_it_is(seed: int) -> None:
    # What is in a file is none of ours, and a new directory hides nothing.
    text = b"30 SCHILY.xattr.trusted.overlay.redirect=/x\n" * 3000
    data = packed(("usr", {}, None), ("usr/doc", {}, text), ("usr/new", OPAQUE, None), (LONG, OPAQUE, None))
    assert passed(data, b"usr", b"usr/doc", seed=seed) == data


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["usr/moved", LONG])
def test_a_directory_that_was_renamed_or_replaced_is_named(name: str, seed: int) -> None:
    before: tuple[str, dict[str, str], bytes] = ("usr/file", {}, b"x" * 1300)
    with pytest.raises(ConstruirError, match=f"they rename a directory of the base image, to /{name}"[:150]):
        passed(packed(before, (name, RENAMED, None)), seed=seed)
    with pytest.raises(ConstruirError, match=f"they replace a directory of the base image, /{name}"[:150]):
        passed(packed(before, (name, OPAQUE, None)), name.encode(), seed=seed)


def test_what_is_no_tar_file_passes() -> None:
    for seed in range(50):
        data = random.Random(seed).randbytes(5000)
        assert passed(data, seed=seed) == data
    whole = packed(("usr", {}, None), ("usr/doc", {"comment": "x" * 900}, b"text"))
    for cut in range(0, len(whole), 97):
        assert passed(whole[:cut]) == whole[:cut]
