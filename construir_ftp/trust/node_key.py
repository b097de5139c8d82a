"""The keys of nodes: each has its own, on its own computer, and the front certifies those that the operator admits.

    <state>/node/construir.key             on the node: its private key; perhaps elsewhere, by trust.key
    <spool>/nodes/NAME/construir.pub       its public half: what the node asks a certificate for
    <spool>/trust/nodes/NAME-cert.pub      the certificate, by the key of the front
            trust/revoked_keys             the keys of nodes that are believed nothing any more

Whoever can write to the spool can ask. What they write there counts for nothing without the front's signature.
"""

import fnmatch
import functools
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from construir_ftp import files, home
from construir_ftp.config import TrustSection
from construir_ftp.errors import ConfigError, ConstruirError, DamagedError
from construir_ftp.jobs import nodes, places
from construir_ftp.trust import certificate, key_place, keys
from construir_ftp.trust.certificate import Certificate
from construir_ftp.trust.key_place import PRIVATE, PUBLIC, REVOKED, PrivateKey
from construir_ftp.trust.keys import PublicKey

log = logging.getLogger("construir.trust")

_CERTIFICATES, _SUFFIX = "nodes", "-cert.pub"


def private(section: TrustSection) -> Path:
    """Where the key of a node on this computer is to be. Raises ConfigError."""
    if section.key:
        return Path(section.key)
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd.exec(5)
    state = Path(given) if given else home.place("XDG_STATE_HOME", ".local/state") / "construir"
    return state / "node" / PRIVATE


def open_key(spool: Path, name: str, section: TrustSection) -> PrivateKey:
    """The key of the node of that name, made if there is none; a certificate is asked for. Raises ConstruirError."""
    path = private(section)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_relative_to(spool) or not files.is_local(path.parent):
            raise ConfigError(
                f"{path}: other computers could read the node's key; set trust.key to a file on a disk here"
            )
        key = key_place.made(path)
        files.replace(nodes.place(spool, name) / PUBLIC, f"{key.public.line(name)}\n".encode())
    except OSError as error:
        raise ConstruirError(f"the key of node {name}: {error.filename}: {error.strerror}") from error
    return key


def asking(spool: Path, name: str) -> PublicKey | None:
    """The key that a node asks a certificate for."""
    with suppress(OSError, ConfigError, ValueError):
        return keys.read(files.read_anew(spool / nodes.DIRECTORY / name / PUBLIC).decode(), name)[0]
    return None


def of(spool: Path, name: str) -> Certificate | None:
    """The certificate of a node, whether it holds or not."""
    with suppress(OSError, DamagedError, ValueError):
        return _read(files.read_anew(_place(spool, name)).decode())
    return None


def why_not(spool: Path, name: str) -> str:
    """Why what a node signs would not be believed; empty if it is, as of what has the front's own key."""
    key, front, cure = asking(spool, name), key_place.known(spool), f"on the front: construir node admit {name}"
    if name == places.LOCAL or key in front[:1]:
        return ""
    if key is None:
        return "it has asked for no certificate; it is of an older version, or has just begun"
    if key in key_place.revoked(spool):
        return "its key was revoked"
    held = of(spool, name)
    if held is None:
        return f"not admitted; {cure}"
    return "" if held.key == key and held.authority in front and held.is_valid() else f"its key is another one; {cure}"


def admitted(spool: Path) -> list[str]:
    """The nodes that have a certificate."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in _place(spool, "").parent.glob(f"*{_SUFFIX}"))


def admit(spool: Path, name: str, key: PublicKey | None, authority: PrivateKey, host: str) -> Certificate:
    """Certify the key that a node has asked for, in the name of the appliance that is called `host`.

    On return the certificate survives a power cut. Raises ConstruirError where there is no key, or it was revoked.
    """
    if key is None:
        cure = f"start it: construir serve node --name {name}"
        raise ConstruirError(f"node {name!a} has asked for no certificate; {cure}")
    if key in key_place.revoked(spool):
        cure = "remove its file on the node, and start it again"
        raise ConstruirError(f"the key of node {name}, {key.fingerprint}, was revoked; {cure}")
    made = certificate.make(key, name, host, authority.public, authority.sign)
    path = _place(spool, name)
    path.parent.mkdir(mode=0o755, exist_ok=True)
    files.replace_durably(path, f"{made.line()}\n".encode())
    return made


def admit_by_rule(spool: Path, patterns: Sequence[str], authority: PrivateKey, host: str, name: str) -> None:
    """Certify a node's first key if the front's configuration names the node. Another one, and any after one was
    revoked, is for the operator.
    """
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) or not why_not(spool, name):
        return
    if _place(spool, name).exists() or name in _revoked_names(spool):
        return
    with suppress(ConstruirError):  # it has not asked, or is revoked under another name
        made = admit(spool, name, asking(spool, name), authority, host)
        log.info("node %s is admitted by nodes.admit, its key is %s", name, made.key.fingerprint)


def revoke(spool: Path, name: str) -> PublicKey:
    """Have nobody believe what a node signs, or has signed. Raises ConstruirError where it was never certified."""
    held = of(spool, name)
    if held is None:
        raise ConstruirError(f"no node {name!a} was admitted; see: construir nodes")
    path = key_place.directory(spool) / REVOKED
    lines = path.read_text() if path.exists() else ""
    files.replace_durably(path, f"{lines}{held.key.line(name)}\n".encode())
    _place(spool, name).unlink()
    files.fsync(_place(spool, name).parent)
    return held.key


def _revoked_names(spool: Path) -> set[str]:
    lines = key_place.published(spool).get(REVOKED, b"").decode(errors="replace").splitlines()
    return {line.split()[-1] for line in lines if line.strip()}


def _place(spool: Path, name: str) -> Path:
    return key_place.directory(spool) / _CERTIFICATES / f"{name}{_SUFFIX}"


@functools.lru_cache(maxsize=256)
def _read(text: str) -> Certificate:
    return certificate.read(text)
