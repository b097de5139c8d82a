"""The FTP clients that people have, each with a driver in its own language: tests/support/clients.

A driver is told by its arguments what to do: `send FILE NAME`, `continue FILE NAME`, `fetch PATH FILE` or `version`. It
is told where by FTP_HOST, FTP_PORT, FTP_USER, FTP_PASSWORD, FTP_CA and FTP_TLS (empty: in clear). If it ends with 0, it
is done.
"""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from construir_ftp import process
from tests.support.places import SUPPORT

DRIVERS = SUPPORT / "clients"
LONG_S = 60.0

SEND, REFUSAL, CONTINUE, FETCH, TLS = "sends", "shows a refusal", "continues", "fetches", "TLS"
FEATURES = (SEND, REFUSAL, CONTINUE, FETCH, TLS)

FETCHES_ONLY = dict.fromkeys((SEND, REFUSAL, CONTINUE), "fetches only")
NO_TLS = {TLS: "no"}
NEVER_CONTINUES = {CONTINUE: "no"}


@dataclass(frozen=True)
class Stack:
    """One client. `argv` starts it, `{}` is its driver; `builds` makes it first, in the directory where it runs.

    `packages` are Debian's, `pip:` or `npm:` ones. `lacks` says of each of FEATURES that it has not, why.
    """

    name: str
    driver: str
    argv: tuple[str, ...]
    packages: tuple[str, ...]
    lacks: dict[str, str] = field(default_factory=dict)
    builds: tuple[tuple[str, ...], ...] = ()
    is_heavy: bool = False

    @property
    def path(self) -> Path:
        """The driver."""
        return DRIVERS / self.driver

    def has(self, feature: str) -> bool:
        """Whether it can do that."""
        return feature not in self.lacks

    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [package for package in self.packages if not _is_installed(package)]

    def run(self, place: Path, *said: str | Path, **env: str) -> tuple[int, str]:
        """Run the driver; its exit status and all it said."""
        return _run([word.format(self.path) for word in self.argv] + [str(word) for word in said], place, env)

    def build(self, place: Path) -> None:
        """Make what it needs."""
        for argv in self.builds:
            status, said = _run([word.format(self.path) for word in argv], place, {})
            assert status == 0, said


def _run(argv: list[str], place: Path, env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        argv,
        cwd=place,
        env=process.environment(HOME=str(place), USER="alice", **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LONG_S,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def _is_installed(package: str) -> bool:
    kind, _, name = package.rpartition(":")
    if kind == "pip":
        return _run([sys.executable, "-m", "pip", "show", "-q", name], Path("/"), {})[0] == 0
    if kind == "npm":
        return _run(["sh", "-c", "command -v npm"], Path("/"), {})[0] == 0
    status, said = _run(["dpkg-query", "-W", "-f", "${Status}", name], Path("/"), {})
    return status == 0 and said.endswith("install ok installed")


def shell(
    name: str, driver: str, package: str, lacks: dict[str, str] | None = None, *, is_heavy: bool = False
) -> Stack:
    """A program that is driven by the shell."""
    return Stack(name, f"{driver}.sh", ("sh", "{}"), tuple(package.split()), lacks or {}, is_heavy=is_heavy)


_JAR = "/usr/share/java/commons-net.jar"
_GO_BUILD = ("sh", "-c", "GOPATH=/usr/share/gocode GO111MODULE=off GOFLAGS= go build -o client {}")
_JAVA_BUILD = ("javac", "-cp", _JAR, "-d", ".", "{}")
# The versions that its lock names, each by its hash.
_NODE_BUILD = (
    "sh",
    "-c",
    'cp "$(dirname {})"/basic_ftp/*.json . && npm ci --silent --no-audit --no-fund --ignore-scripts',
)
_NODE_RUN = ("sh", "-c", 'NODE_PATH="$PWD/node_modules" exec node {} "$@"', "node")

STACKS = (
    shell("curl", "curl", "curl"),
    shell("lftp", "lftp", "lftp"),
    shell("tnftp", "tnftp", "tnftp", NO_TLS),
    shell("ncftpput, ncftpget", "ncftp", "ncftp", NO_TLS | {CONTINUE: "no: it sends from the beginning"}),
    shell("rclone", "rclone", "rclone", NEVER_CONTINUES),
    shell("GNU wget", "wget", "wget", FETCHES_ONLY),
    Stack("Python, ftplib", "python_ftplib.py", (sys.executable, "{}"), ()),
    Stack("Python, urllib", "python_urllib.py", (sys.executable, "{}"), (), FETCHES_ONLY | NO_TLS),
    Stack("Python, aioftp", "python_aioftp.py", (sys.executable, "{}"), ("pip:aioftp",)),
    Stack("Python, ftputil", "python_ftputil.py", (sys.executable, "{}"), ("pip:ftputil",)),
    Stack(
        "Python, Twisted",
        "python_twisted.py",
        ("/usr/bin/python3", "{}"),
        ("python3-twisted",),
        NO_TLS | {CONTINUE: "no: the reply to REST is an error to it"},
    ),
    Stack("Perl, Net::FTP", "net_ftp.pl", ("perl", "{}"), ("perl", "libio-socket-ssl-perl")),
    shell("Perl, LWP", "lwp", "libwww-perl", NO_TLS | NEVER_CONTINUES | {REFUSAL: "no: all is well to it"}),
    Stack("PHP, ftp", "php.php", ("php", "{}"), ("php-cli",)),
    Stack("Ruby, net/ftp", "net_ftp.rb", ("ruby", "{}"), ("ruby",)),
    Stack("Tcl, tcllib's ftp", "tcllib.tcl", ("tclsh", "{}"), ("tcl", "tcllib"), NO_TLS),
    Stack("Lua, LuaSocket", "luasocket.lua", ("lua5.4", "{}"), ("lua5.4", "lua-socket"), NO_TLS | NEVER_CONTINUES),
    shell("busybox", "busybox", "busybox", NO_TLS | NEVER_CONTINUES),
    shell("wput", "wput", "wput", NO_TLS | {CONTINUE: "no: it sends all of it again", FETCH: "sends only"}),
    shell("aria2", "aria2", "aria2", FETCHES_ONLY | NO_TLS),
    shell("axel", "axel", "axel", FETCHES_ONLY | NO_TLS),
    shell("snarf", "snarf", "snarf", FETCHES_ONLY | NO_TLS),
    shell("GNU inetutils' ftp", "inetutils", "inetutils-ftp", NO_TLS),
    shell("NetKit's ftp-ssl", "netkit", "ftp-ssl"),
    shell("yafc", "yafc", "yafc", NO_TLS),
    shell(
        "gvfs",
        "gvfs",
        "gvfs-backends libglib2.0-bin dbus",
        NO_TLS | {REFUSAL: "no: only that it failed"} | NEVER_CONTINUES,
        is_heavy=True,
    ),
    Stack(
        "Go, jlaffaye/ftp",
        "jlaffaye.go",
        ("./client",),
        ("golang-go", "golang-github-jlaffaye-ftp-dev"),
        builds=(_GO_BUILD,),
        is_heavy=True,
    ),
    Stack(
        "Java, Commons Net",
        "CommonsNet.java",
        ("java", "-cp", f".:{_JAR}", "CommonsNet", "net"),
        ("default-jdk-headless", "libcommons-net-java"),
        builds=(_JAVA_BUILD,),
        is_heavy=True,
    ),
    Stack(
        "Java, URL",
        "CommonsNet.java",
        ("java", "-cp", f".:{_JAR}", "CommonsNet", "url"),
        ("default-jdk-headless", "libcommons-net-java"),
        NO_TLS | NEVER_CONTINUES | {REFUSAL: "no: all is well to it"},
        builds=(_JAVA_BUILD,),
        is_heavy=True,
    ),
    Stack(
        "Mono, FtpWebRequest",
        "FtpWebRequest.cs",
        ("mono", "client.exe"),
        ("mono-mcs", "mono-runtime", "libmono-system4.0-cil"),
        builds=(("mcs", "-out:client.exe", "{}"),),
        is_heavy=True,
    ),
    Stack(
        "Node, basic-ftp",
        "basic_ftp.js",
        _NODE_RUN,
        ("npm:basic-ftp",),
        builds=(_NODE_BUILD,),
        is_heavy=True,
    ),
    Stack(
        "Erlang, ftp",
        "erlang_ftp.escript",
        ("escript", "{}"),
        ("erlang-base", "erlang-ftp", "erlang-ssl"),
        NEVER_CONTINUES | {REFUSAL: "no: only that it failed"},
        is_heavy=True,
    ),
)
