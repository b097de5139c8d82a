"""A disk that boots by itself, in the formats of other hypervisors, by qemu-img(1).

The same disk makes the same file: what qemu-img makes up anew every time, so that no two disks are taken for one, is
made of the disk's own digest here.

Sources: QEMU's block/vdi.c and block/vmdk.c for where that is.
"""

import re
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from construir_ftp import files, process
from construir_ftp.errors import CommandError, UsageError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage

Format = Literal["raw", "qcow2", "vmdk", "vdi"]
FORMATS: tuple[Format, ...] = get_args(Format)
_TIMEOUT_S = 3600
# uuid_image and uuid_last_snap, in this order.
_VDI_IDS_AT = 0x188
# The text that describes a disk, where VMware has a name for its content, of up to eight digits.
_VMDK_TEXT_AT, _VMDK_TEXT_BYTES = 512, 20 * 512
_VMDK_ID = re.compile(rb"\nCID=[0-9a-f]{1,8}\n")


def export(base: BaseImage, form: Format, target: Path) -> None:
    """Write the disk of a base image, which has one, to `target`, whole or not at all; what was there is replaced."""
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: not a directory; choose another place with -o")
    source = base.path / baseimage.DISK
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:
        draft = Path(place) / target.name  # which is noted in a vmdk
        if form == "raw":
            files.copy(source, draft)
        else:
            _convert(source, form, draft)
            settle(draft, form, base.manifest.disk.sha256 if base.manifest.disk else "")
        files.fsync(draft)
        draft.replace(target)


def _convert(source: Path, form: Format, target: Path) -> None:
    if process.find("qemu-img") is None:
        raise CommandError("qemu-img: not installed; run: apt install qemu-utils")
    process.run(["qemu-img", "convert", "-f", "raw", "-O", form, source, target], timeout_s=_TIMEOUT_S)


def settle(path: Path, form: Format, digest: str) -> None:
    """Make what qemu-img has made up for the disk at `path` of `digest`, the SHA-256 of what the disk holds."""
    if form in _SETTLE:
        _SETTLE[form](path, digest)


def _settle_vdi(path: Path, digest: str) -> None:
    with path.open("r+b") as file:
        file.seek(_VDI_IDS_AT)
        for what in ("image", "last snapshot"):
            file.write(uuid.uuid5(uuid.NAMESPACE_URL, f"construir:{digest}:{what}").bytes)


def _settle_vmdk(path: Path, digest: str) -> None:
    with path.open("r+b") as file:
        file.seek(_VMDK_TEXT_AT)
        # qemu-img writes the text twice. Where its second number is shorter, the end of the first text is still there.
        text, _, _ = file.read(_VMDK_TEXT_BYTES).partition(b"\0")
        settled = _VMDK_ID.sub(f"\nCID={digest[:8]}\n".encode(), text, count=1)
        file.seek(_VMDK_TEXT_AT)
        file.write(settled.ljust(_VMDK_TEXT_BYTES, b"\0"))


_SETTLE: dict[Format, Callable[[Path, str], None]] = {
    "vmdk": _settle_vmdk,
    "vdi": _settle_vdi,
}
