"""Pages: the templates filled in. Whatever a template prints is made visible and escaped; only templates hold HTML.

Each function returns the bytes of a file. Addresses are relative, so that the site can be published anywhere.
"""

import hashlib
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from construir_ftp import __version__
from construir_ftp.config import Config
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.result import Result
from construir_ftp.jobs.status import Summary
from construir_ftp.layers.store import Layer
from construir_ftp.site import live, plots, view, words
from construir_ftp.site.conditions import Finding
from construir_ftp.site.plots import Plot
from construir_ftp.site.shelf import Fact

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
LISTED, LISTED_OF_ONE, IN_FEED = 25, 200, 50
_MOST_WAITING = 12


class Running(NamedTuple):
    """A job that runs. `part` is how much of its usual time has passed; None where that is not known."""

    id: str
    name: str
    since: datetime | None
    doing: str
    elapsed_s: float
    usual_s: float | None
    part: float | None


class Server(NamedTuple):
    """The FTP server, as it is typed; where that isn't all known, `url` has a word in capitals in its place."""

    url: str
    is_known: bool


class Overview(NamedTuple):
    """What the index shows. `keys` are the fingerprints of those that results are signed with, that of today first."""

    summary: Summary
    running: list[Running]
    newest: list[Fact]
    results: int
    day: int
    week: list[Plot]
    health: list[Finding]
    keys: list[str]


class Pages:
    """Of one site: `title` heads them, `url` is where the world has them, with a slash at its end."""

    def __init__(self, title: str, url: str, server: Server) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
        filters: dict[str, Any] = {
            "size": words.size,
            "lasting": words.length,
            "clock": words.clock,
            "stamp": words.stamp,
            "moment": words.moment,
            "segment": view.segment,
            "sentence": lambda text: text[:1].upper() + text[1:],
            "status": view.status,
            "page_of": view.page_of,
            "typed": shlex.quote,
        }
        self._environment.filters.update(filters)
        common = {"title": title, "url": url, "version": __version__, "count": words.count, "plot": plots}
        self._environment.globals.update(common, server=server.url, is_known=server.is_known)
        self._said = f"{title}\n{url}\n{server.url}"

    def version(self) -> str:
        """What the pages are made by: another one makes others."""
        sources = sorted([*(_HERE / "templates").iterdir(), *STATIC.iterdir(), *_HERE.glob("*.py")])
        told = "\n".join([__version__, self._said, *(path.read_text() for path in sources)])
        return hashlib.sha256(told.encode()).hexdigest()

    def index(self, overview: Overview) -> bytes:
        """What runs, what waits and why, what came last, how it is."""
        shown = overview.summary.queue[:_MOST_WAITING]
        return self._fill("index.html", root="", it=overview, waiting=shown)

    def result(self, result: Result, directory: Path) -> bytes:
        """One result."""
        return self._fill(
            "result.html",
            root="../",
            it=result,
            id=directory.name,
            stages=plots.timeline(result),
            artifacts=view.artifacts(result),
            files=view.files(directory, result),
            log=view.log_end(directory),
        )

    def running(self, job: Running, copies: Path) -> bytes:
        """A job that runs, with the end of its log; at the same address its result will be."""
        return self._fill("running.html", root="../", it=job, log=view.log_end(copies), logs=live.of(copies))

    def contributor(self, name: str, results: int, newest: Sequence[Fact]) -> bytes:
        """One contributor."""
        return self._fill("contributor.html", root="../", name=name, results=results, newest=newest)

    def contributors(self, names: Sequence[tuple[str, int]]) -> bytes:
        """All of them, with the number of results of each."""
        return self._fill("contributors.html", root="", names=names)

    def images(self, images: Sequence[BaseImage], layers: Sequence[Layer], default: str) -> bytes:
        """What jobs run on, and what they can ask for."""
        return self._fill("images.html", root="", images=images, layers=layers, default=default)

    def feed(self, newest: Sequence[Fact], contributor: str = "") -> bytes:
        """An Atom feed (RFC 4287), of all or of one contributor."""
        name = f"contributors/{contributor}.xml" if contributor else "feed.xml"
        updated = max((one.published_s for one in newest), default=0.0)
        return self._fill("feed.xml", newest=newest, contributor=contributor, name=name, updated=updated)

    def _fill(self, template: str, **values: object) -> bytes:
        return (self._environment.get_template(template).render(values) + "\n").encode()


def _shown(value: object) -> object:
    return value if isinstance(value, Markup) else words.visible(str(value))


def address(config: Config) -> str:
    """Where the world has the pages, with a slash at its end."""
    host = f"[{config.site.address}]" if ":" in config.site.address else config.site.address
    return config.site.url.rstrip("/") + "/" if config.site.url else f"http://{host}:{config.site.port}/"


def ftp_server(config: Config) -> Server:
    """What is configured. With a certificate a name is needed, which only those know who use it."""
    ftp, is_anywhere = config.ftp, config.ftp.address in ("::", "0.0.0.0")  # noqa: S104 - compared
    host = ftp.masquerade_address or ("" if is_anywhere else ftp.address)
    host = "" if config.tls.certificate else host
    shown = f"[{host}]" if ":" in host else host or "HOST"
    return Server(f"ftp://{shown}:{ftp.port or 'PORT'}", is_known=bool(host and ftp.port))


def as_json(value: object) -> bytes:
    """A file for programs."""
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"
