"""What a judge says, and what it is told.

The judge has read hostile bytes, so its answer is checked like any other input: only these fields, only these values.
"""

import math
import socket
import struct
from typing import Annotated, Literal

import msgspec

from construir_ftp import schema
from construir_ftp.config import GateSection
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.formats import FORMATS
from construir_ftp.jobs import request
from construir_ftp.units import Duration, Size

# A judge's first words, said before it has read anything.
GREETING = b"construir judge 1"


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="job"):
    """The upload is a job. `image_bytes` is the file system's size, proved to be there; SHA-256 is the upload's.

    `construir_toml` is the text of that file in it, which nobody has looked into yet. `objection`, if there is one, is
    why it must not be admitted all the same: what it asks for can't be told, or it could not be run. It can be
    unpacked, and looked at. `padding_bytes` zeros follow the stream. `needs` is what the job's program needs of the
    machine's root, a path or a name on PATH, and `needed_as` what for; the image has a file of that path itself if
    `is_beside` (program.Need). `newest_s` is when its newest file was changed, in seconds since 1970; 0 where that is
    not told.
    """

    codec: Annotated[str, msgspec.Meta(pattern=rf"^({'|'.join(FORMATS)})\Z")]
    filesystem: Annotated[str, msgspec.Meta(pattern=r"^(ext2|ext3|ext4|btrfs|xfs)\Z")]
    upload_bytes: Annotated[int, msgspec.Meta(ge=1)]
    image_bytes: Annotated[int, msgspec.Meta(ge=1)]
    upload_sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    construir_toml: Annotated[str, msgspec.Meta(max_length=request.MOST_BYTES)] = ""
    objection: Annotated[str, msgspec.Meta(max_length=300, pattern=r"^[ -~]*\Z")] = ""
    padding_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    needs: Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[!-~]*\Z")] = ""
    needed_as: Literal["", "interpreter", "loader", "target"] = ""
    newest_s: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    is_beside: bool = False

    def naming(self, name: str) -> "Verdict":
        """The same, with the upload's name in the cure."""
        if not self.objection:
            return self
        return msgspec.structs.replace(self, objection=str(RefusedError(self.objection).naming("FILE", name)))

    def require_admissible(self) -> None:
        """Raise RefusedError if there is an objection."""
        if self.objection:
            raise RefusedError(self.objection)


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="refused"):
    """The upload is not a job; `reply` is the FTP code that says so, `is_cut` whether it may become one."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=r"^[ -~]+\Z")]
    reply: Annotated[int, msgspec.Meta(ge=452, le=553)]
    is_cut: bool = False


Answer = Verdict | Refusal


def encode_answer(answer: Answer) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(answer) + b"\n"


def decode_answer(line: bytes) -> Answer:
    """Raises msgspec.MsgspecError if it is no answer."""
    answer: Answer = schema.from_json(line, Answer)
    return answer


def encode_limits(limits: GateSection) -> str:
    """The section as JSON, sizes and durations with their units."""
    units = {Size: "B", Duration: "s"}
    table = {key: getattr(limits, key) for key in limits.__struct_fields__}
    return msgspec.json.encode(
        {key: f"{value}{units[type(value)]}" if type(value) in units else value for key, value in table.items()}
    ).decode()


def decode_limits(text: str) -> GateSection:
    """Raises msgspec.MsgspecError if it is no section."""
    return schema.convert(schema.from_json(text, dict), GateSection)


def patience_s(limits: GateSection) -> int:
    """Seconds that a judge may compute for, in all; at least one."""
    return max(1, math.ceil(limits.timeout))


def too_late(limits: GateSection) -> RefusedError:
    """The refusal of an upload whose check takes longer than that, by the clock or by the processor."""
    return RefusedError(f"checking it was not done after {limits.timeout:g} s; make it smaller")


# -- how urgent an upload is ---------------------------------------------------------------------------------------

# What a judge's priority is lowered by for each other judge of the same contributor, and at most (nice(2)): a tenth of
# the processor's time beside one of the usual priority is still enough to come to an end.
_STEP, _LEAST_URGENT = 5, 15


def priority(others: int) -> bytes:
    """What a judge server is told with an upload whose contributor has so many other judges at work."""
    return bytes([min(_LEAST_URGENT, _STEP * others)])


def niceness(said: bytes) -> int:
    """What that lowers the judge's priority by."""
    return min(_LEAST_URGENT, said[0])


# -- how far an upload has grown -----------------------------------------------------------------------------------

# A judge reads a file while it is still being received, and never beyond what it has been told of. That comes over a
# socket (SOCK_SEQPACKET, unix(7)): message(...) on one end, Told on the other.
_MESSAGE = struct.Struct("<QQ?")


class AbandonedError(ConstruirError):
    """The upload was cut, or whoever received it is gone: nobody waits for a verdict."""


class Told:
    """What comes in by `channel`. Raises AbandonedError when it is closed before the upload is whole."""

    def __init__(self, channel: socket.socket) -> None:
        self.size_bytes, self.most_bytes = 0, 2**63 - 1
        self.is_whole = False
        self._channel = channel

    def wait(self, beyond_bytes: int) -> None:
        """Return when there are more bytes than these, or all there will ever be."""
        while self.size_bytes <= beyond_bytes and not self.is_whole:
            self._hear(0)

    def look(self) -> None:
        """Take note of what is known by now, without waiting."""
        try:
            while not self.is_whole:
                self._hear(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return

    def _hear(self, flags: int) -> None:
        said = self._channel.recv(_MESSAGE.size, flags)
        if not said:
            raise AbandonedError("nobody waits for the verdict any more")
        self.size_bytes, most_bytes, self.is_whole = _MESSAGE.unpack(said)
        self.most_bytes = self.size_bytes if self.is_whole else most_bytes


def message(size_bytes: int, most_bytes: int, is_whole: bool) -> bytes:
    """That there are so many bytes, how many there may be, and whether that is all."""
    return _MESSAGE.pack(size_bytes, most_bytes, is_whole)
