"""Promises of pages: whatever strangers call things, a page holds our elements alone, and no address but ours."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from construir_ftp import schema
from construir_ftp.config import Config, FtpSection, TlsSection
from construir_ftp.jobs.result import Artifact, BaseImageUsed, LayerUsed, Result, Signer, Used
from construir_ftp.jobs.status import RunningJob, Summary
from construir_ftp.site import plots, shelf, words
from construir_ftp.site.conditions import Finding
from construir_ftp.site.pages import Overview, Pages, Running, Server, ftp_server
from construir_ftp.site.shelf import Shelf
from tests.support import sites

URL = "https://construir.example.org/"
ATOM = "{http://www.w3.org/2005/Atom}"
MARKUP = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'/><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</title></pre><h1>",
    "]]><!--",
    "../../../etc/passwd",
    "&lt;b&gt;",
)
hostile = st.one_of(
    st.text(max_size=40),
    st.sampled_from(MARKUP),
    st.builds("{}{}{}".format, st.text(max_size=5), st.sampled_from(MARKUP), st.text(max_size=5)),
)


class Elements(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def values(self, *names: str) -> Iterator[str]:
        for _, attributes in self.found:
            yield from (attributes[name] for name in names if name in attributes)


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages("Construir", URL, Server("ftp://construir.example.org:2121", is_known=True))


def of_result(pages: Pages, one: Result, place: Path, output: bytes = b"") -> Elements:
    place.mkdir(exist_ok=True)
    (place / "output.log").write_bytes(output)
    return Elements(pages.result(one, place))


def skeleton(page: Elements) -> list[str]:
    return [tag for tag, _ in page.found]


def assert_harmless(page: Elements) -> None:
    for tag, attributes in page.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")], attributes
        assert tag not in ("iframe", "object", "embed", "base", "form", "style")
    assert [attributes["src"] for tag, attributes in page.found if tag == "script"] == [
        next(page.values("src")),
    ]
    assert re.fullmatch(r"(\.\./)?static/live\.js", next(page.values("src")))
    for address in page.values("href"):
        # What begins with no scheme, no slash and no question mark is an address below, or beside, this page.
        assert re.match(r"#main$|[A-Za-z0-9._%~-]+(/|$)", address), address
        steps = address.removeprefix("../").split("/")
        assert not {".", ".."} & {unquote(step) for step in steps}, address


@st.composite
def results(draw: st.DrawFn) -> Result:
    texts = {
        name: draw(hostile)
        for name in ("name", "contributor", "status", "reason", "codec", "filesystem", "upload_sha256")
    }
    return sites.result(
        **texts,
        source_signers=(Signer(draw(hostile), draw(hostile), draw(hostile)),),
        image=draw(hostile),
        accelerator=draw(hostile),
        base_image=BaseImageUsed(draw(hostile), draw(hostile)),
        used=Used([LayerUsed(draw(hostile), draw(hostile), [draw(hostile)])], [draw(hostile)]),
        artifacts=(Artifact(draw(hostile), draw(hostile), 1, draw(hostile)),),
        artifacts_left_out=(draw(hostile),),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(results(), st.one_of(st.binary(max_size=200), hostile.map(lambda text: text.encode(errors="replace"))))
def test_a_result_whatever_it_says_is_made_of_our_elements_alone(
    pages: Pages, tmp_path: Path, one: Result, output: bytes
) -> None:
    page = of_result(pages, one, tmp_path / "20261122T104102Z-7f3a-hello", output)
    assert_harmless(page)
    usual = sites.result(status="failed", used=Used([LayerUsed("a", "b", ["c"])], ["d"]), artifacts_left_out=("e",))
    ours = set(skeleton(of_result(pages, usual, tmp_path / "usual", b"a line\n")))
    assert set(skeleton(page)) <= ours
    assert words.visible(one.reason).split() == [
        word for word in words.visible(one.reason).split() if word in page.text
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(results(), max_size=3), hostile)
def test_lists_plots_and_feeds_whatever_jobs_are_called_are_whole(pages: Pages, some: list[Result], why: str) -> None:
    facts = [shelf.fact(f"2026-{number}", one) for number, one in enumerate(some)]
    known = Shelf()
    for fact in facts:
        known.add(fact)
    now = datetime(2026, 11, 23, tzinfo=UTC)
    summary = Summary(time=now, why=why, waiting=2, queue=[why, "b"], running=[RunningJob(why, now, why)])
    overview = Overview(
        summary,
        [Running(why, why, now, why, 1.0, 2.0, 0.5)],
        facts,
        len(facts),
        1,
        plots.week(known, [], now.timestamp()),
        [Finding("problem", why, why)],
        ["SHA256:a", "SHA256:b"],
    )
    assert_harmless(Elements(pages.index(overview)))
    assert_harmless(Elements(pages.contributor("alice", 3, facts)))
    feed = ElementTree.fromstring(pages.feed(facts))
    assert [entry.findtext(f"{ATOM}summary") for entry in feed.iter(f"{ATOM}entry")] == [
        words.visible(fact.reason) for fact in facts
    ]


def test_a_feed_has_all_that_atom_demands(pages: Pages) -> None:
    one = sites.result()
    feed = ElementTree.fromstring(pages.feed([shelf.fact(one.id, one)], "alice"))
    for where in (feed, next(feed.iter(f"{ATOM}entry"))):  # RFC 4287, 4.1.1 and 4.1.2
        assert where.findtext(f"{ATOM}id", "").startswith(URL)
        assert where.findtext(f"{ATOM}title")
        assert where.findtext(f"{ATOM}updated") == "2026-11-22T10:42:06Z"
        assert where.findtext(f"{ATOM}author/{ATOM}name") == "alice"
    assert {link.get("rel"): link.get("href") for link in feed.findall(f"{ATOM}link")} == {
        "self": f"{URL}contributors/alice.xml",
        "alternate": f"{URL}contributors/alice.html",
    }


def test_a_result_says_in_words_how_it_ended_what_came_of_it_and_how_to_fetch_it(pages: Pages, tmp_path: Path) -> None:
    one = sites.result(status="idle-timeout", reason="printed nothing for 30 min")
    (tmp_path / one.id / "uploaded").mkdir(parents=True)
    (tmp_path / one.id / "uploaded/hello.img.zst").write_bytes(b"what was sent")
    page = of_result(pages, one, tmp_path / one.id, b"first\nlast\n")
    commands = (
        f"construir fetch {one.id} --server ftp://construir.example.org:2121\n",
        "sha256sum --check",
        f"construir shell {one.id}",
    )
    made = ("out/hello.txt", "make=4.3-4.1", "last", "1 min")
    for told in ("Fell silent", "printed nothing for 30 min", *made, *commands):
        assert told in page.text, told
    assert "in place of" not in page.text
    hrefs = list(page.values("href"))
    assert f"../done/{one.id}/artifacts/hello.txt" in hrefs
    assert f"../done/{one.id}/uploaded/hello.img.zst" in hrefs
    assert hrefs.index(f"../done/{one.id}/artifacts/hello.txt") < hrefs.index(f"../done/{one.id}/output.log")


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ({}, "ftp://127.0.0.1:2121"),
        ({"address": "2001:db8::1", "port": 21}, "ftp://[2001:db8::1]:21"),
        ({"address": "0.0.0.0", "masquerade_address": "192.0.2.7"}, "ftp://192.0.2.7:2121"),
        ({"address": "0.0.0.0"}, "ftp://HOST:2121"),
        ({"address": "::", "port": 0}, "ftp://HOST:PORT"),
        ({"port": 0}, "ftp://127.0.0.1:PORT"),
    ],
)
def test_a_page_names_the_server_or_says_that_it_has_to_be_named(
    tmp_path: Path, section: dict[str, object], url: str
) -> None:
    found = ftp_server(Config(ftp=schema.convert(section, FtpSection)))
    assert found == Server(url, is_known=not re.search("HOST|PORT", url))
    page = of_result(Pages("Construir", URL, found), sites.result(), tmp_path / "20261122T104102Z-7f3a-hello")
    assert f"--server {url}\n" in page.text
    told = f"# in place of {url}: the address by which you reach the FTP server\n"
    assert (told in page.text) == (not found.is_known)


def test_a_server_with_a_certificate_is_reached_by_a_name_that_only_its_users_know() -> None:
    config = Config(ftp=FtpSection(masquerade_address="192.0.2.7"), tls=TlsSection(certificate="/etc/x.pem"))
    assert ftp_server(config) == Server("ftp://HOST:2121", is_known=False)
