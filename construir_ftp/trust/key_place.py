"""Where an appliance keeps its keys: the private one for its runner alone, the public ones for anyone.

    <spool>/trust/construir.key      the private key (PKCS #8), for its owner; perhaps elsewhere, see `private`
                  construir.pub      its public half
                  allowed_signers    two lines for each key that has signed here, the newest first: one for what it
                                     signs, one for what the nodes sign that it certifies
                  revoked_keys       the keys of nodes that were revoked, if there are any; see node_key

The key is made where neither it nor construir.pub is: one that was lost is not replaced by itself. Whoever puts another
one in its place has changed it from the next start on; what the old one has signed is still known by its line.
"""

import hashlib
import os
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from construir_ftp import files, process
from construir_ftp.config import TrustSection
from construir_ftp.errors import ConfigError, ConstruirError
from construir_ftp.trust import keys
from construir_ftp.trust.keys import RAW_BYTES, PublicKey

PRIVATE, PUBLIC, SIGNERS, REVOKED = "construir.key", "construir.pub", "allowed_signers", "revoked_keys"
SHOWN = (SIGNERS, PUBLIC, REVOKED)
_DIRECTORY = "trust"
_PATIENCE_S = 60.0
_MOST_BYTES = 2**20


class PrivateKey(msgspec.Struct, frozen=True):
    """A private key, by its file, as it was when it was opened, and its public half."""

    path: Path
    public: PublicKey
    file_sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The one in a file. Raises ConfigError, CommandError, OSError."""
        return cls(path, _public_half(path), _sha256(path))

    def demand_usable(self) -> None:
        """Raises ConfigError where the file is no longer what was opened, OSError where it can't be read."""
        if _sha256(self.path) != self.file_sha256:
            raise ConfigError(f"{self.path} has changed; put the key back, or start again for another one")

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of its signature. Raises ConfigError, CommandError where openssl fails, OSError."""
        self.demand_usable()
        with tempfile.NamedTemporaryFile(prefix="construir-") as file:  # openssl asks for its length
            file.write(message)
            file.flush()
            argv: list[str | Path] = ["openssl", "pkeyutl", "-sign", "-inkey", self.path, "-rawin", "-in", file.name]
            return process.capture(argv, timeout_s=_PATIENCE_S)


def directory(spool: Path) -> Path:
    """Where the public keys are."""
    return spool / _DIRECTORY


def name(section: TrustSection) -> str:
    """What the appliance is called in what it signs."""
    return section.name or socket.gethostname()


def published(spool: Path) -> dict[str, bytes]:
    """The files that anyone may read, by their names; none before the runner has started for the first time."""
    found = {}
    for file in SHOWN:
        with suppress(OSError):
            found[file] = files.read_anew(directory(spool) / file)[:_MOST_BYTES]
    return found


def known(spool: Path) -> list[PublicKey]:
    """All keys that have signed here, the newest first."""
    text = published(spool).get(SIGNERS, b"").decode(errors="replace")
    return keys.read(text, SIGNERS) if text else []


def revoked(spool: Path) -> list[PublicKey]:
    """The keys of nodes that are believed nothing any more."""
    text = published(spool).get(REVOKED, b"").decode(errors="replace")
    return keys.read(text, REVOKED) if text else []


def private(spool: Path, section: TrustSection) -> Path:
    """Where the private key is to be: handed over by systemd (systemd.exec(5), LoadCredential=), as configured, or in
    the spool.
    """
    handed = _handed_over() / PRIVATE
    if handed.exists():
        return handed
    return Path(section.key) if section.key else directory(spool) / PRIVATE


def _handed_over() -> Path:
    return Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/nowhere")


def open_key(spool: Path, section: TrustSection) -> PrivateKey:
    """The private key, made if there was never one; its public half is then where anyone finds it.

    Raises ConstruirError where it can't be used, or others can read it.
    """
    path = private(spool, section)
    try:
        _prepare(directory(spool))
        demand_not_lost(spool, path)
        key = made(path)
        _publish(spool, key.public, name(section))
    except OSError as error:
        raise ConstruirError(f"the key that results are signed with: {error.filename}: {error.strerror}") from error
    return key


def made(path: Path) -> PrivateKey:
    """The key in a file, made if it is not there. Raises ConstruirError, OSError."""
    files.sweep_drafts(path.parent, path.name)  # one may hold a key, or be another name of this one
    if not path.exists():
        _make(path)
    if path.parent != _handed_over():
        demand_secret(path)
    return PrivateKey.of(path)


def _prepare(place: Path) -> None:
    if not place.is_dir():
        place.mkdir(mode=0o755)
        place.chmod(0o755)
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigError(f"{place} belongs to another user, who could change the key in it; remove it")


def _make(path: Path) -> None:
    """Have a new key there, whole from the moment it is there; one that somebody else makes meanwhile stays."""
    made = process.capture(["openssl", "genpkey", "-algorithm", "ed25519"], timeout_s=_PATIENCE_S)
    with files.draft(path) as draft:
        files.write_durably(draft, made, 0o600)
        with suppress(FileExistsError):
            os.link(draft, path)
    files.fsync(path.parent)


def demand_not_lost(spool: Path, path: Path) -> None:
    """Raises ConfigError where the private key is missing, although there was one."""
    public = directory(spool) / PUBLIC
    if public.exists() and not path.exists():
        cure = f"put it back from the backup; if a new key is wanted, remove {public} as well, and tell contributors"
        raise ConfigError(f"{path} is missing, the key that results are signed with: {cure}")


def demand_secret(path: Path) -> None:
    """Raises ConfigError where others can read a key."""
    status = path.stat()
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise ConfigError(f"{path}: others can read this key, or it is another user's; chmod 600, and chown it")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _public_half(path: Path) -> PublicKey:
    argv: list[str | Path] = ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"]
    der = process.capture(argv, timeout_s=_PATIENCE_S)
    if not der.startswith(keys.DER_PREFIX):
        raise ConfigError(f"{path}: not an ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    return PublicKey(der[-RAW_BYTES:])


def _publish(spool: Path, key: PublicKey, host: str) -> None:
    place, before = directory(spool), published(spool)
    old = [line for line in before.get(SIGNERS, b"").decode(errors="replace").splitlines() if key.line() not in line]
    wanted = {
        SIGNERS: "\n".join([key.signer_line(host), key.authority_line(host), *old, ""]).encode(),
        PUBLIC: f"{key.line(f'{keys.PRINCIPAL}@{host}')}\n".encode(),
    }
    for file, content in wanted.items():
        if before.get(file) != content:
            files.replace_durably(place / file, content)
