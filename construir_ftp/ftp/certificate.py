"""The server's certificate and key: two PEM files -> what TLS is spoken with, and when it ends.

The files are read when they have changed, so that who renews them has nothing to restart. Never asks for a
password, and never goes on without a word with files that can't be used.
"""

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from construir_ftp import process
from construir_ftp.errors import CommandError, ConfigError

log = logging.getLogger("construir.ftp")

_OPENSSL_TIMEOUT_S = 10

# Of TLS 1.2: forward secrecy, and no CBC (RFC 7525, 4.2). Those of TLS 1.3 are all of that kind.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# What a client that names protocols has to name (RFC 7301; IANA's registry).
ALPN = "ftp"

# What PEM (RFC 7468) has at the beginning of each.
_KEY, _CERTIFICATE = b"PRIVATE KEY-----", b"-----BEGIN CERTIFICATE-----"
# OpenSSL's words for a key that is not the certificate's; the second where one is RSA and the other is not.
_NOT_ITS_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED", "KEY_TYPE_MISMATCH")


class Certificate:
    """A certificate and its key, as they are on disk now."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises ConfigError if they can't be used."""
        self._certificate, self._key = certificate, key
        self._seen = self._on_disk()
        self._context = load(certificate, key)

    def context(self) -> ssl.SSLContext:
        """What a new session speaks TLS with: the files as they are now or, if those can't be used, as they were.

        A session keeps what it began with, which alone can resume its TLS sessions.
        """
        on_disk = self._on_disk()
        if on_disk != self._seen:
            self._seen = on_disk
            try:
                self._context = load(self._certificate, self._key)
                log.info("%s: a new certificate, in use from now on", self._certificate)
            except ConfigError as error:
                log.error("%s; the one before stays in use", error)  # noqa: TRY400 - the message says it all
        return self._context

    def _on_disk(self) -> list[tuple[int, ...] | None]:
        return [_look(path) for path in (self._certificate, self._key)]


def _look(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or rewritten; symbolic links, such as certbot's, are followed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def load(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server speaks TLS with: 1.2 or 1.3, with AEAD ciphers. Raises ConfigError, one line, with a remedy."""
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            key_name = "certificate" if path == certificate else "key"
            cure = "make it readable for the FTP server's user"
            if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                cure = f"name the file that has it by tls.{key_name}"
            raise ConfigError(f"{path}: {error.strerror}; {cure}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols([ALPN])
    # Whatever a Python's or a system's default: with it, one that was cut passes for closed. SSL_CTX_set_options(3)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # Without a password of ours OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise ConfigError(_complaint(certificate, key, error.reason)) from error
    return context


def _complaint(certificate: Path, key: Path, reason: str | None) -> str:
    if _CERTIFICATE in _text(certificate) and _KEY not in _text(key):
        alone = "not a certificate and its key, since " if key == certificate else ""
        return f"{key}: {alone}no private key is in it; name the file that has it by tls.key"
    if reason in _NOT_ITS_KEY:
        return f"{key}: not the key of {certificate}; tls.key names the one it was made with"
    text = f"{certificate}, {key}: not a certificate and its key, in PEM and without a password"
    return f"{text} ({reason.lower().replace('_', ' ')})" if reason else text


def _text(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def expires(certificate: Path) -> datetime:
    """When the first certificate in the file runs out. Raises CommandError."""
    said = process.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-enddate"], timeout_s=_OPENSSL_TIMEOUT_S
    ).strip()
    try:
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(said.removeprefix("notAfter=")), UTC)
    except ValueError as error:
        raise CommandError(f"openssl x509 -enddate of {certificate} said {said!a}") from error
