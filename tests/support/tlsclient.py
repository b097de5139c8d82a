"""Certificates made by openssl, and an FTP client that speaks TLS exactly as it is told to, for all tests."""

import socket
import ssl
from pathlib import Path
from typing import Self

from construir_ftp.config import TlsSection
from tests.support import images
from tests.support.ftpclient import Control, House


def make_certificate(directory: Path, name: str = "server", *, days: int = 90, kind: str = "ec") -> tuple[Path, Path]:
    """A new certificate for localhost, signed by itself, and its key; `kind` is ec or rsa."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    algorithm = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256") if kind == "ec" else ("rsa:2048",)
    images.run(
        *("openssl", "req", "-x509", "-newkey", *algorithm, "-nodes", "-keyout", key, "-out", certificate),
        *("-days", str(days), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"),
    )
    return certificate, key


def tls_section(files: tuple[Path, Path], **settings: object) -> TlsSection:
    """[tls] with this certificate and key, and a second port for implicit FTPS."""
    certificate, key = files
    return TlsSection(certificate=str(certificate), key=str(key), implicit=True, implicit_port=0, **settings)  # type: ignore[arg-type]


def strict_context(certificate: Path, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """What a careful client speaks TLS with: a connection that ends without close_notify is an ssl.SSLEOFError."""
    context = ssl.create_default_context(cafile=certificate)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class TlsControl(Control):
    """A control connection that begins in clear; `protect` is AUTH, PBSZ and PROT, `shake_hands` only the handshake."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, source: str = "") -> None:
        super().__init__(address, source)
        self.context = context
        self.is_data_protected = False

    def protect(self) -> Self:
        """Explicit FTPS, data too. The greeting must have been read."""
        assert self.ask("AUTH TLS").startswith("234")
        self.shake_hands()
        assert self.ask("PBSZ 0").startswith("200")
        assert self.ask("PROT P").startswith("200")
        self.is_data_protected = True
        return self

    def shake_hands(self) -> None:
        """Speak TLS from now on."""
        self._lines.close()
        self.socket = self.wrap(self.socket)
        self._lines = self.socket.makefile("rb")

    def wrap(self, sock: socket.socket, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """The same connection, after a handshake; its session may be resumed from another's."""
        return self.context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False, session=session)

    def passive(self) -> socket.socket:
        """Open a data connection, and shake hands on it if that was agreed."""
        data = super().passive()
        return self.wrap(data) if self.is_data_protected else data

    def store(self, name: str, content: bytes, command: str = "STOR") -> str:
        """A whole upload, properly closed; the reply to it."""
        data = self.begin(name, command)
        try:
            data.sendall(content)
            if isinstance(data, ssl.SSLSocket):
                data.unwrap().close()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            data.close()
        return self.reply()


def begin(house: House, certificate: Path, version: ssl.TLSVersion | None = None) -> TlsControl:
    """A connection whose greeting is read; still in clear, nobody logged in."""
    control = TlsControl(house.server.address, strict_context(certificate, version))
    assert control.reply().startswith("220")
    return control


def begin_implicitly(house: House, certificate: Path) -> TlsControl:
    """A connection to the port for implicit FTPS whose greeting is read; nobody logged in."""
    assert house.server.implicit_port is not None
    control = TlsControl((house.server.address[0], house.server.implicit_port), strict_context(certificate))
    control.shake_hands()
    control.is_data_protected = True
    assert control.reply().startswith("220")
    return control
