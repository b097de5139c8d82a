"""What a .dsc or a .changes says, and whether somebody's key has signed it; both are found out in jails.

The signature is checked by gpgv(1), which hands on nothing but what was signed. So what is outside of the signature is
never read. What the reader says is checked like any other hostile input.
"""

import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import msgspec

from construir_ftp import process, schema
from construir_ftp.errors import CommandError, ConstruirError, RefusedError, one_line
from construir_ftp.jail import cell, tools
from construir_ftp.jobs import source_package
from construir_ftp.jobs.result import Signer
from construir_ftp.jobs.source_package import Control

_TIMEOUT_S = 30.0
_MEMORY_BYTES = 512 * 2**20
_GPGV = "gpgv"
_WHY_CHARACTERS = 200
_STATUS = re.compile(r"^\[GNUPG:\] (\w+)(?: (\w+))?(?: ([^\n]*))?$", re.MULTILINE)
_FINGERPRINT = re.compile(r"[0-9A-F]{40,64}")
_USER_CHARACTERS = 200
# Of gpg's doc/DETAILS: what else than GOODSIG becomes of a signature.
_FAILURES = {
    "BADSIG": "its signature is wrong: it was changed after it was signed; sign it again with debsign, and send it",
    "REVKEYSIG": "it is signed by a key that is revoked",
    "EXPSIG": "its signature has expired",
    "EXPKEYSIG": "it is signed by a key that has expired",
}


def read(path: Path, keyring: Path | None) -> tuple[Control, Signer]:
    """What the file at `path` says, and who has signed it; with a keyring, what in it is signed by a key of that.

    Raises RefusedError where it is no such file, or is not signed so; ConstruirError where that can't be found out.
    """
    if path.stat().st_size > source_package.MOST_BYTES:
        raise RefusedError(f"it is larger than {source_package.MOST_BYTES >> 10} KiB")
    text = path.read_bytes()
    signed, signer = (text, Signer()) if keyring is None else _signed(text, keyring)
    return _read(signed), signer


def _read(text: bytes) -> Control:
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, readable=cell.python())
    ended = _run(walls, [sys.executable, "-I", "-m", "construir_ftp.intake.control_reader"], text)
    if ended.status:
        raise RefusedError(_printable(ended.words.rpartition("\n")[2]) or "it can't be read")
    try:
        return schema.from_json(ended.output, Control)
    except msgspec.MsgspecError as error:
        raise RefusedError("it can't be read") from error


def _signed(text: bytes, keyring: Path) -> tuple[bytes, Signer]:
    """What of a text is signed by a key of the keyring, and by whom. Raises RefusedError where that is nothing."""
    if not keyring.is_file():
        raise ConstruirError(
            f"keyring {keyring}: not there; give it again with: construir user set NAME --keyring FILE"
        )
    if not process.find(_GPGV):
        raise ConstruirError("gpgv is missing, so that no signature can be checked; run: apt install gpgv")
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, readable=(keyring,))
    ended = _run(walls, [_GPGV, "--status-fd=2", "--keyring", keyring, "--output", "-"], text)
    found = _STATUS.findall(ended.words)
    said = {word: first for word, first, _ in found}
    if ended.status == 0 and "VALIDSIG" in said and "GOODSIG" in said:
        return ended.output, _signer({word: [first, *more.split(" ")] for word, first, more in found})
    raise RefusedError(_why(said))


def _signer(said: dict[str, list[str]]) -> Signer:
    """By gpg's doc/DETAILS: VALIDSIG ends with the primary key's fingerprint, a user id is UTF-8 with %XX in it."""
    fingerprint, user_id = said["VALIDSIG"][-1], unquote(" ".join(said["GOODSIG"][1:]))
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ConstruirError(f"gpgv names no key that has signed, but {fingerprint[:_WHY_CHARACTERS]!a}")
    return Signer(fingerprint=fingerprint, user_id=one_line(user_id)[:_USER_CHARACTERS])


def _why(said: dict[str, str]) -> str:
    """Why a signature is none, by gpgv's status lines."""
    for word, why in _FAILURES.items():
        if word in said:
            return why
    if "NO_PUBKEY" in said or "ERRSIG" in said:
        key = said.get("NO_PUBKEY") or said.get("ERRSIG", "")
        return f"it is signed by the key {key}, which is not in your keyring here; have the operator add it"
    return "it is not signed, and is to be; sign it with debsign, and send it again"


def _run(walls: cell.Cell, argv: list[str | Path], text: bytes) -> tools.Ended:
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.seek(0)
        try:
            return tools.run(walls, argv, _TIMEOUT_S, stdin=file)
        except CommandError as error:
            raise RefusedError("reading it was not done in time; try again later", 452) from error


def _printable(words: str) -> str:
    return ascii(words)[1:-1][:_WHY_CHARACTERS]
