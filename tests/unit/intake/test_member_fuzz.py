"""Streams of several members, joined and cut at random: none that lacks a byte is a job, none that is whole is refused.

The members are made by the real tools, once. Every input is made from its number, so that one which fails can be made
again. 400 in each run, 20,000 with --all.
"""

import io
import itertools
import random
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from construir_ftp.config import GateSection
from construir_ftp.diskimage.stream import UploadReader
from construir_ftp.errors import RefusedError
from construir_ftp.intake import judge, verdict
from construir_ftp.intake.verdict import Told
from construir_ftp.units import Size
from tests.support import images
from tests.support.images import CODECS, KIB, MIB

LIMITS = GateSection(max_memory=Size(64 * MIB))
QUICK, ALL = 400, 20_000
DIVISIONS = 4
TOOLS = {
    "gzip": ("gzip -c", "pigz -c", "bgzip -c"),
    "bzip2": ("bzip2 -c", "pbzip2 -1 -c"),
    "xz": ("xz -0 -c", "xz -0 --check=none -c", "pixz -0"),
    "zstd": ("zstd -q -c", "zstd -q --no-check -c", "pzstd -q -p 2 -c"),
    "lz4": ("lz4 -q -c", "lz4 -q --no-frame-crc -BD -c"),
}


class Segment(NamedTuple):
    """A part of an upload. Cut in the midst of zeros, what is left is whole. `holds`: whether the image needs it."""

    data: bytes
    holds: bool = False
    is_zeros: bool = False


class Material(NamedTuple):
    """An image, and for each codec several divisions of it into members, and members of nothing."""

    image: bytes
    divisions: dict[str, list[list[bytes]]]
    empty: dict[str, list[bytes]]


def packed(tool: str, data: bytes) -> bytes:
    return subprocess.run(["sh", "-c", f"exec {tool}"], input=data, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """By the real tools."""
    place, chance = tmp_path_factory.mktemp("material"), random.Random(1)
    tree = images.job_directory(place / "tree")
    (tree / "noise").write_bytes(images.noise(40_000))
    image = images.of_directory(tree, place / "image", 256 * KIB).read_bytes()
    divisions: dict[str, list[list[bytes]]] = {"raw": [[image]]}
    for codec, tools in TOOLS.items():
        divisions[codec] = []
        for _ in range(DIVISIONS):
            places = [0, *sorted(chance.randrange(1, len(image)) for _ in range(chance.randrange(4))), len(image)]
            pieces = [image[start:end] for start, end in itertools.pairwise(places) if end > start]
            divisions[codec].append([packed(chance.choice(tools), piece) for piece in pieces])
    empty = {codec: [packed(tool, b"") for tool in tools if "pixz" not in tool] for codec, tools in TOOLS.items()}
    return Material(image, divisions, empty | {"raw": []})


def fillers(chance: random.Random, codec: str, material: Material, *, is_end: bool) -> list[Segment]:
    """What may stand between two members, or after the last, and holds nothing."""
    segments = []
    for _ in range(chance.choice((0, 0, 1, 2))):
        if codec in ("zstd", "lz4") and chance.random() < 0.5:
            held = chance.randbytes(chance.choice((0, 1, 300, 5000)))
            head = bytes((0x50 + chance.randrange(16), 0x2A, 0x4D, 0x18)) + len(held).to_bytes(4, "little")
            segments.append(Segment(head + held))
        elif codec == "xz" and chance.random() < 0.5:
            segments.append(Segment(bytes(4 * chance.randrange(1, 300)), is_zeros=True))
        elif material.empty[codec]:
            segments += [Segment(chance.choice(material.empty[codec]))]
    if is_end and chance.random() < 0.4:
        segments.append(Segment(bytes(chance.choice((1, 2, 3, 4, 511, 70_000))), is_zeros=True))
    return segments


def joined(chance: random.Random, codec: str, material: Material) -> list[Segment]:
    """A whole upload, in segments."""
    segments = []
    for number, member in enumerate(chance.choice(material.divisions[codec])):
        # No padding before the first, which would be no stream at all.
        if number or codec != "xz":
            segments += fillers(chance, codec, material, is_end=False)
        segments.append(Segment(member, holds=True))
    return segments + fillers(chance, codec, material, is_end=True)


def is_whole_until(segments: list[Segment], length: int) -> bool:
    """Whether what is cut off there is not needed, and no member is cut in its midst."""
    start = 0
    for segment in segments:
        end = start + len(segment.data)
        if length < end and segment.holds:
            return False
        if start < length < end and not segment.is_zeros:
            return False
        start = end
    return True


def is_job(data: bytes, chance: random.Random, path: Path) -> bool:
    """What the judge says, of all at once or of what grows in pieces that may end anywhere."""
    try:
        if chance.random() < 0.5:
            return judge.judge(UploadReader(io.BytesIO(data)), LIMITS).image_bytes == 256 * KIB
        path.write_bytes(data)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, path.open("rb", buffering=0) as file:
            for size in sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(12))):
                ours.send(verdict.message(size, 2**31, is_whole=False))
            ours.send(verdict.message(len(data), 2**31, is_whole=True))
            return judge.judge(UploadReader(file, Told(theirs)), LIMITS).image_bytes == 256 * KIB
    except RefusedError:
        return False


def other_join(chance: random.Random, codec: str, segments: list[Segment], material: Material) -> bytes:
    """One that is no whole stream: a member is missing, something is between, or another codec goes on."""
    parts = [segment.data for segment in segments]
    members = [number for number, segment in enumerate(segments) if segment.holds]
    kind = chance.choice(("missing", "between", "other"))
    if kind == "missing":
        del parts[chance.choice(members)]
    elif kind == "between" and codec != "raw":
        parts.insert(chance.randrange(members[0], len(parts)) + 1, b"\x01" + chance.randbytes(chance.randrange(9)))
        parts.append(b"\n")
    else:
        others = [other for other in TOOLS if other != codec]
        parts.append(chance.choice(material.empty[chance.choice(others)]) + images.noise(MIB // 64))
    return b"".join(parts)


def test_no_cut_stream_is_a_job_and_no_whole_one_is_refused(
    material: Material, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    judge.prepare()
    accepted = 0
    most = ALL if request.config.getoption("--all") else QUICK
    for number in range(most):
        chance = random.Random(number)
        codec = chance.choice(CODECS)
        segments = joined(chance, codec, material)
        whole = b"".join(segment.data for segment in segments)
        kind = chance.choice(("whole", "cut", "cut", "joined"))
        if kind == "whole":
            data, expected = whole, True
        elif kind == "cut":
            near = [sum(len(segment.data) for segment in segments[:count]) for count in range(len(segments) + 1)]
            length = chance.choice(near) + chance.choice((-1, 0, 1)) if chance.random() < 0.3 else None
            length = chance.randrange(len(whole)) if length is None else min(max(0, length), len(whole))
            data, expected = whole[:length], is_whole_until(segments, length)
        else:
            data, expected = other_join(chance, codec, segments, material), False
        accepted += expected
        assert is_job(data, chance, tmp_path / "upload") == expected, f"input {number}: {codec}, {kind}"
    assert most // 5 < accepted < most // 2
