"""Promises of the site to who looks at it: a real browser on a real appliance's pages.

What it has looked like is kept in .pytest_cache/d/screenshots.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.pack import pack
from tests.support import machines, webservers
from tests.support.appliance import CONFIG, Appliance

LONG_MS = 120_000
SPEAKS = """#!/bin/sh -e
mkdir out && echo made >'out/made+1.txt'
for n in $(seq 15); do echo "line $n <b>of</b> 15"; sleep 1; done
"""
EVIL_PAGE = "<!doctype html><title>evil</title><script>top.document.title = 'owned'; fetch('/status.json')</script>"
EVIL = f"""#!/bin/sh
mkdir out && cat >out/evil.html <<'end'
{EVIL_PAGE}
end
echo '</pre><script>document.title = "owned"</script><img src=x onerror="document.title=1">'
printf '\\033]0;owned\\007\\033[31mred\\033[0m \\342\\200\\256txt.exe\\n'
exit 3
"""


def send(appliance: Appliance, name: str, script: str, place: Path) -> str:
    """Send a job that keeps what is in out/; its id."""
    job = place / name
    job.mkdir()
    (job / "run.sh").write_text(script)
    (job / "run.sh").chmod(0o755)
    (job / "construir.toml").write_text('outputs = ["out/*"]\n')
    pack.pack(job, place / f"{name}.img.zst", 2**20)
    return appliance.submit(place / f"{name}.img.zst")


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory, base: BaseImage) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("browser"), machines.light(CONFIG)).running() as running:
        yield running


@pytest.fixture(scope="module")
def url(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    appliance.wait_until_logged("pages in ")
    place = tmp_path_factory.mktemp("web") / "server"
    with webservers.running("construir", appliance.spool / "site", place) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(LONG_MS)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def evil(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A hostile result; its id."""
    job = send(appliance, "evil", EVIL, tmp_path_factory.mktemp("evil"))
    assert appliance.wait(job)["status"] == "failed"
    return job


def test_a_job_is_followed_from_the_index_to_its_artifact(
    appliance: Appliance, url: str, page: Page, tmp_path: Path
) -> None:
    index = page.context.new_page()
    index.goto(url)
    expect(index.get_by_text("No job has ended yet")).to_be_visible()
    job = send(appliance, "speaks", SPEAKS, tmp_path)
    index.get_by_role("link", name="Follow its log").wait_for()  # the index renews itself
    page.goto(f"{url}index.html")
    page.get_by_role("link", name="Follow its log").click()
    page.evaluate("window.isTheSame = true")
    log = page.get_by_role("region", name="Log of the job")
    expect(log).to_contain_text("line 5 <b>of</b> 15", timeout=LONG_MS)
    expect(log).to_contain_text("line 9 <b>of</b> 15", timeout=LONG_MS)
    assert page.evaluate("window.isTheSame")
    assert log.text_content() == "".join(
        f"line {n + 1} <b>of</b> 15\n" for n in range((log.text_content() or "").count("\n"))
    )
    expect(page.get_by_text("run.sh ended with exit status 0")).to_be_visible(timeout=LONG_MS)  # at the same address
    assert page.url == f"{url}jobs/{job}.html"
    with page.expect_download() as download:
        page.get_by_role("link", name="out/made+1.txt").click()
    assert download.value.path().read_text() == "made\n"
    assert appliance.wait(job)["artifacts"][0]["path"] == "out/made+1.txt"
    expect(index.get_by_role("row", name="Success speaks")).to_be_visible(timeout=LONG_MS)


def test_a_hostile_result_stays_inert(url: str, page: Page, evil: str) -> None:
    page.goto(f"{url}jobs/{evil}.html")
    assert page.title().startswith("evil: Failed")
    log = page.get_by_role("region", name="End of the log")
    expect(log).to_contain_text('</pre><script>document.title = "owned"</script>')
    expect(log).to_contain_text(r"red \u202etxt.exe")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="out/evil.html").click()
    assert download.value.path().read_text() == f"{EVIL_PAGE}\n"
    # Also where somebody opens it by its address, or a page of ours frames it.
    with page.expect_download():
        page.evaluate(f"location.href = '../done/{evil}/artifacts/evil.html'")
    page.goto(f"{url}done/{evil}/output.log")
    assert page.locator("body > pre").count() == 1
    assert page.locator("img, script").count() == 0
    assert "owned" not in page.title()


def test_without_a_script_all_of_it_is_there(url: str, browser: Browser, evil: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    page.get_by_role("link", name="evil", exact=True).first.click()
    expect(page.get_by_text("run.sh ended with exit status 3")).to_be_visible()
    page.get_by_role("link", name="Contributors").click()
    page.get_by_role("link", name="alice").click()
    expect(page.get_by_role("heading", name="alice")).to_be_visible()
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    url: str, browser: Browser, evil: str, width: int, scheme: str, pytestconfig: pytest.Config
) -> None:
    pictures = pytestconfig.cache.mkdir("screenshots") if pytestconfig.cache else None
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        bypass_csp=True,  # axe is a script that is not ours
    )
    page = context.new_page()
    for path in ("index", f"jobs/{evil}", "contributors", "contributors/alice", "images"):
        page.goto(f"{url}{path}.html")
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        if pictures:
            name = path.replace(evil, "evil").replace("/", "-")
            page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png", full_page=True)
    context.close()
