"""Every client of tests/support/stacks: a good job, a refusal whose words are seen, a continued upload, a result.

Each in clear, and over TLS where the client speaks it. `--all` runs those that are large to install, too, and with
`--write-compatibility` docs/compatibility.md is written from what was seen.
"""

import ftplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.config import GateSection
from tests.support import compatibility, images
from tests.support.contributor import NAME, PASSWORD
from tests.support.ftpclient import House, serving, users_text, wait_until
from tests.support.image_tools import IMAGE_TOOLS, Tool
from tests.support.stacks import CONTINUE, DRIVERS, FETCH, REFUSAL, SEND, STACKS, TLS, Stack
from tests.support.tlsclient import tls_section

MIB = 2**20
JOB = images.pack("zstd", images.claiming(images.image("ext2", MIB), 2 * MIB)[:MIB] + images.noise(MIB))
LOG = images.noise(200_000)
WHY = "Refused: not a file system image"


@pytest.fixture(scope="module")
def shared_house(tmp_path_factory: pytest.TempPathFactory, certificate_files: tuple[Path, Path]) -> Iterator[House]:
    """One server for all clients: each sends under names of its own."""
    gate = GateSection(filesystems=("ext2", "ext3", "ext4", "btrfs", "xfs"))
    with serving(tmp_path_factory.mktemp("house"), gate, tls=tls_section(certificate_files)) as house:
        house.users.path.write_text(users_text(NAME, password=PASSWORD))
        house.publish("a-job", {"output.log": LOG})
        yield house


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> Iterator[dict[str, compatibility.Seen]]:
    """What was seen of each client; written down at the end, if that is asked for."""
    seen: dict[str, compatibility.Seen] = {}
    yield seen
    if request.config.getoption("--write-compatibility"):
        compatibility.write(seen)


class Try:
    """One client that does what is asked of it, in clear or over TLS."""

    def __init__(self, stack: Stack, house: House, place: Path, certificate: Path, *, is_secure: bool) -> None:
        self.stack, self.house, self.place = stack, house, place
        self.prefix = f"{stack.driver.split('.')[0]}{STACKS.index(stack)}{'-tls' if is_secure else ''}"
        host, port = house.server.address
        self.env = {
            "FTP_HOST": "localhost" if is_secure else host,
            "FTP_PORT": str(port),
            "FTP_USER": NAME,
            "FTP_PASSWORD": PASSWORD,
            "FTP_CA": str(certificate),
            "FTP_TLS": "explicit" if is_secure else "",
        }
        (place / "job").write_bytes(JOB)
        (place / "junk").write_bytes(b"no image\n")

    def run(self, *said: str) -> tuple[int, str]:
        """Have it do something."""
        return self.stack.run(self.place, *said, **self.env)

    def queued(self, name: str) -> bytes:
        """What has become a job under a name."""
        (job,) = [job for job in self.house.spool.jobs("queue") if job.record().filename == name]
        return job.upload.read_bytes()

    def sends(self) -> None:
        """A good job."""
        name = f"{self.prefix}-good.img.zst"
        status, said = self.run("send", str(self.place / "job"), name)
        assert status == 0, said
        assert self.queued(name) == JOB

    def is_told_why(self) -> None:
        """A job that is refused."""
        status, said = self.run("send", str(self.place / "junk"), f"{self.prefix}-bad.img")
        assert status != 0, said
        assert WHY in said

    def continues(self) -> None:
        """A job whose first half is there already."""
        name = f"{self.prefix}-cut.img.zst"
        with self.house.connect() as control, control.log_in(NAME, PASSWORD).begin(f"/queue/{name}") as data:
            data.sendall(JOB[:600_000])
            assert control.ask("ABOR").startswith("426")
            assert control.reply().startswith("226")
            wait_until(lambda: name in self.house.kept(), "it is kept")
        kept_bytes = self.house.kept()[name]
        status, said = self.run("continue", str(self.place / "job"), name)
        assert status == 0, said
        assert self.queued(name) == JOB
        assert kept_bytes > 500_000

    def fetches(self) -> None:
        """A file of a result."""
        status, said = self.run("fetch", "a-job/output.log", "fetched.log")
        assert status == 0, said
        assert (self.place / "fetched.log").read_bytes() == LOG
        (self.place / "fetched.log").unlink()


CHECKS = {SEND: Try.sends, REFUSAL: Try.is_told_why, CONTINUE: Try.continues, FETCH: Try.fetches}


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_client_does_all_it_can(
    request: pytest.FixtureRequest,
    shared_house: House,
    tmp_path: Path,
    certificate: Path,
    seen: dict[str, compatibility.Seen],
    stack: Stack,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if stack.is_heavy and not request.config.getoption("--all"):
        pytest.skip(f"{', '.join(stack.packages)}: only with --all")
    if missing := stack.missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    caplog.set_level("INFO", "construir.ftp")
    stack.build(tmp_path)
    for is_secure in [False, True][: 1 + stack.has(TLS)]:
        tried = Try(stack, shared_house, tmp_path, certificate, is_secure=is_secure)
        for feature, check in CHECKS.items():
            if stack.has(feature):
                check(tried)
    status, version = tried.run("version")
    assert status == 0, version
    seen[stack.name] = compatibility.Seen(version.strip().splitlines()[-1].replace("\t", " "))
    assert ("from byte 599999" in caplog.text) == stack.has(CONTINUE), "it goes on where it was cut"


@pytest.mark.parametrize("tool", IMAGE_TOOLS, ids=lambda tool: tool.name)
def test_image_of_a_tool_is_accepted_or_refused_as_the_page_says(
    shared_house: House, tmp_path: Path, seen: dict[str, compatibility.Seen], tool: Tool
) -> None:
    image = tool.run(tmp_path)
    with shared_house.client(NAME, PASSWORD) as client, image.open("rb") as file:
        if tool.refusal:
            with pytest.raises(ftplib.error_perm, match=tool.refusal):
                client.storbinary(f"STOR /queue/{image.name}", file)
        else:
            assert client.storbinary(f"STOR /queue/{image.name}", file).startswith("226 Accepted")
    seen[tool.name] = compatibility.Seen(tool.version())


def test_every_driver_is_somebodys() -> None:
    assert {stack.driver for stack in STACKS} == {path.name for path in DRIVERS.iterdir() if path.is_file()}


def test_page_names_every_client_and_what_it_can() -> None:
    page = compatibility.PAGE.read_text()
    for stack in STACKS:
        assert compatibility.cells(stack) in page, f"run pytest --all --write-compatibility {Path(__file__).name}"
    for tool in IMAGE_TOOLS:
        assert compatibility.tool_cells(tool) in page
