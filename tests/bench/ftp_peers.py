"""Three FTP servers in C, as Debian ships them, to be measured beside ours; none of them has to be installed.

Debian's packages conflict with each other, and would start services. Here they are only unpacked; each program runs in
the foreground, on loopback, in a mount namespace of its own (unshare(1)) in which /etc has the accounts made here, so
that nothing outside of one directory is written. That takes root. All are configured to be quick: no logs, no look-ups
of names, no delays, no limits; and all, like ours, speak TLS 1.3 with AES-256-GCM to curl and lftp.
"""

import ctypes
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from construir_ftp.ftp.users import Users
from tests.support import images, tlsclient
from tests.support.appliance import NAME, PASSWORD

# mod_tls is in a package of its own.
_PACKAGES = {"vsftpd": ["vsftpd"], "pure-ftpd": ["pure-ftpd"], "proftpd": ["proftpd-core", "proftpd-mod-crypto"]}
NAMES = tuple(_PACKAGES)

_ANYONE, _CONTRIBUTOR, _NOBODY = 65532, 65533, 65534

_IN_NAMESPACE = 'for name in passwd group shadow pam.d; do mount --bind "$0/$name" /etc/$name; done; exec "$@"'

_VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
anon_root={spool}
ftp_username=ftp
nopriv_user=nobody
local_enable=YES
write_enable=YES
chroot_local_user=YES
allow_writeable_chroot=YES
check_shell=NO
secure_chroot_dir={var}
pam_service_name=vsftpd
xferlog_enable=NO
max_clients=0
max_per_ip=0
ssl_enable=YES
rsa_cert_file={certificate}
ssl_ciphers=HIGH
require_ssl_reuse=NO
allow_anon_ssl=YES
force_local_data_ssl=NO
force_local_logins_ssl=NO
"""

_PROFTPD = """
ServerType standalone
DefaultAddress 127.0.0.1
Port {port}
User nobody
Group nogroup
ModulePath {packages}/proftpd/usr/lib/proftpd
LoadModule mod_tls.c
UseIPv6 off
UseReverseDNS off
AuthUserFile {etc}/proftpd
AuthGroupFile {etc}/group
AuthOrder mod_auth_file.c
RequireValidShell off
DelayEngine off
MaxInstances none
ScoreboardFile {var}/scoreboard
PidFile {var}/pid
SystemLog none
TransferLog NONE
WtmpLog off
AllowOverwrite on
DefaultRoot ~
TLSEngine on
TLSRSACertificateFile {chain}
TLSRSACertificateKeyFile {key}
TLSOptions NoSessionReuseRequired
<Anonymous {spool}>
User ftp
Group nogroup
UserAlias anonymous ftp
RequireValidShell off
<Limit WRITE>
DenyAll
</Limit>
</Anonymous>
"""


@dataclass(frozen=True)
class Place:
    """The directory that has all the servers need."""

    path: Path

    @property
    def spool(self) -> Path:
        """Our spool. The peers show it to anyone: all serve the same files, in done/."""
        return self.path / "spool"

    @property
    def uploads(self) -> Path:
        """What contributors see of the peers."""
        return self.path / "uploads"

    @property
    def certificate(self) -> Path:
        """Certificate and key, in one file."""
        return self.path / "certificate.pem"

    def make_certificate(self) -> tuple[Path, Path]:
        """Certificate and key, in two files; RSA, since vsftpd takes no other."""
        files = tlsclient.make_certificate(self.path, kind="rsa")
        self.certificate.write_bytes(b"".join(path.read_bytes() for path in reversed(files)))
        return files


def unpack(place: Place) -> None:
    """Fetch the packages of the peers, with those they need and this machine has not, and unpack them."""
    for peer, packages in _PACKAGES.items():
        root = _programs(place, peer)
        root.mkdir(parents=True)
        simulated = images.run("apt-get", "install", "--simulate", "--no-install-recommends", *packages)
        names = {*packages, *re.findall(r"^Inst (\S+)", simulated, re.MULTILINE)}
        subprocess.run(["apt-get", "download", "-q", *sorted(names)], cwd=root, check=True, capture_output=True)
        for package in root.glob("*.deb"):
            images.run("dpkg-deb", "--extract", package, root)


def configure(place: Place, ports: dict[str, int]) -> None:
    """Write each peer's configuration, and an /etc in which anyone and the contributor have accounts."""
    chain, key = place.make_certificate()
    etc, empty = place.path / "etc", place.path / "var"
    (etc / "pam.d").mkdir(parents=True)
    empty.mkdir()
    place.uploads.mkdir()
    os.chown(place.uploads, _CONTRIBUTOR, _CONTRIBUTOR)
    hashed = _password_hash()
    anyone = f"ftp:%s:{_ANYONE}:{_NOBODY}::{place.spool}:/bin/sh\n"
    contributor = f"{NAME}:%s:{_CONTRIBUTOR}:{_CONTRIBUTOR}::{place.uploads}:/bin/sh\n"
    system = f"root:x:0:0::/:/bin/sh\nnobody:x:{_NOBODY}:{_NOBODY}::/:/bin/sh\n"
    (etc / "passwd").write_text(system + anyone % "x" + contributor % "x")
    (etc / "proftpd").write_text(anyone % "*" + contributor % hashed)
    (etc / "shadow").write_text(f"ftp:*:20000:0:99999:7:::\n{NAME}:{hashed}:20000:0:99999:7:::\n")
    (etc / "group").write_text(f"root:x:0:\nnogroup:x:{_NOBODY}:\n{NAME}:x:{_CONTRIBUTOR}:\n")
    (etc / "pam.d" / "vsftpd").write_text("auth required pam_unix.so\naccount required pam_unix.so\n")
    for name in ("proftpd", "shadow"):
        (etc / name).chmod(0o600)
    for peer, text in (("vsftpd", _VSFTPD), ("proftpd", _PROFTPD)):
        words = {"spool": place.spool, "packages": place.path / "packages", "etc": etc, "var": empty}
        words |= {"certificate": place.certificate, "chain": chain, "key": key}
        _configuration(place, peer).write_text(text.format(port=ports[peer], **words))


def argv(place: Place, peer: str, port: int) -> list[str]:
    """The words that start a peer, in its namespace; the process stays the same."""
    program = _programs(place, peer) / "usr/sbin" / peer
    words: dict[str, list[str | Path]] = {
        "vsftpd": [_configuration(place, peer)],
        "pure-ftpd": [
            *("--ipv4only", "--bind", f"127.0.0.1,{port}", "--maxclientsnumber", "2000", "--maxclientsperip", "2000"),
            *("--dontresolve", "--login", "unix", "--chrooteveryone", "--minuid", "1", "--anonymouscantupload"),
            *("--limitrecursion", "10000000:8", "--syslogfacility", "none", "--pidfile", place.path / "pure.pid"),
            *("--tls", "1", "--certfile", place.certificate),
        ],
        "proftpd": ["--nodaemon", "--config", _configuration(place, peer)],
    }
    libraries = ":".join(map(str, (_programs(place, peer) / "usr/lib").glob("*-linux-gnu")))
    return [
        *("unshare", "--mount", "sh", "-c", _IN_NAMESPACE, str(place.path / "etc")),
        *("env", f"LD_LIBRARY_PATH={libraries}", str(program), *map(str, words[peer])),
    ]


def _programs(place: Place, peer: str) -> Path:
    return place.path / "packages" / peer


def _configuration(place: Place, peer: str) -> Path:
    return place.path / f"{peer}.conf"


# -- passwords -------------------------------------------------------------------------------------------------


def _password_hash() -> str:
    """The contributor's password for the peers: a SHA-512 hash (crypt(5)) that costs the CPU what ours costs, argon2id.

    Equal is the processor time of one check, in seconds, threads included, measured here and now; the peers have no
    argon2 in common. What argon2 takes in memory, 64 MiB for each check, nobody gives the peers.
    """
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p

    def hashed(rounds: int) -> str:
        return str(crypt(PASSWORD.encode(), f"$6$rounds={rounds}$construir$".encode()).decode())

    trial = 100_000
    rounds = round(trial * _check_cpu_s() / _cpu_s(lambda: hashed(trial)))
    return hashed(rounds)


def _check_cpu_s() -> float:
    with tempfile.TemporaryDirectory() as directory:
        users = Users(Path(directory) / "users.toml")
        users.add(NAME, PASSWORD)
        return _cpu_s(lambda: users.check(NAME, PASSWORD))


def _cpu_s(action: Callable[[], object]) -> float:
    """Processor time that an action takes, in seconds; the least of five."""
    taken = []
    for _ in range(5):
        begun = time.process_time()
        action()
        taken.append(time.process_time() - begun)
    return min(taken)
