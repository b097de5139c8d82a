"""What whole-system tests share: the base images that deploy/test built, and an appliance that stops by itself."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from construir_ftp.config import Config
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.store import Store
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.template import Template
from construir_ftp.pack import pack
from tests.support import machines, umlimage
from tests.support.appliance import CONFIG, Appliance
from tests.support.ftpclient import Control, House, serving
from tests.support.places import JOBS
from tests.support.steady import pytest_runtest_protocol  # noqa: F401 - pytest calls it
from tests.support.tlsclient import make_certificate


def pytest_addoption(parser: pytest.Parser) -> None:
    """--all: what takes minutes is done in full, such as fuzzing; --write-compatibility: see test_compatibility;
    --user-mode: see test_popular_packages.
    """
    parser.addoption("--write-compatibility", action="store_true", help="write docs/compatibility.md")
    parser.addoption("--user-mode", action="store_true", help="install popular packages in user-mode machines")
    parser.addoption("--all", action="store_true", help="fuzz with 100,000 inputs instead of a thousand or more")


def pytest_configure() -> None:
    """Whoever starts the tests in the background has them ignore SIGINT, and a child would never hear Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What only machines, or base images, are there for.
_MACHINE_FIXTURES = {
    "images",
    "uml_base",
    "base",
    "light_base",
    "shape",
    "template",
    "appliance",
    "shared_appliance",
    "usual_appliance",
}

_USER_MODE = pytest.mark.slow("the same was seen with another kind of machine, or is seen with a single one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a machine or a base image; skip what is slow, unless asked for, and what only root can run."""
    for item in items:
        place = item.path.relative_to(config.rootpath / "tests").parts[0]
        if place in ("machine", "system") or _MACHINE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.machine)
        # Those of a machine take a second; an appliance's are as many as those of the usual kind.
        if "uml_base" in getattr(item, "fixturenames", ()) or ("user-mode" in item.name and place != "machine"):
            item.add_marker(_USER_MODE)
        slow, root = item.get_closest_marker("slow"), item.get_closest_marker("root")
        if slow is not None and not config.getoption("--all"):
            item.add_marker(pytest.mark.skip(reason=f"{slow.args[0]}: only with --all"))
        if root is not None and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason=root.args[0]))


@pytest.fixture(scope="session")
def images() -> Path:
    """Where the base images are; deploy/test has built them."""
    return Config().images_path()


@pytest.fixture(scope="session")
def base(images: Path) -> BaseImage:
    """The default base image."""
    return baseimage.find(images, Config().images.default)


@pytest.fixture(scope="session")
def light_base(images: Path) -> BaseImage:
    """The base image of an appliance whose configuration is machines.light's."""
    return machines.light_base(images)


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that has a command's machines be those which start soonest, where these are not what is looked at."""
    config = tmp_path_factory.mktemp("light") / "construir.toml"
    config.write_text(machines.light(CONFIG))
    return f"--config={config}"


@pytest.fixture(scope="session")
def shape(base: BaseImage, images: Path) -> Shape:
    """A small machine."""
    return machines.shape(images, base)


@pytest.fixture(scope="session")
def uml_base(images: Path) -> BaseImage:
    """The base image with a user-mode kernel."""
    return baseimage.find(images, umlimage.NAME)


@pytest.fixture(scope="session")
def template(shape: Shape) -> Iterator[Template]:
    """One that small machines are cloned from."""
    with closing(Template.build(shape, machines.LONG_S)) as built:
        yield built


def packed(job: str, place: Path) -> Path:
    """One of tests/jobs as an upload in `place`."""
    upload = place / f"{job}.img.zst"
    pack.pack(JOBS / job, upload, 2**20)
    return upload


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A job that ends well, as it is uploaded."""
    return packed("hello", tmp_path)


@pytest.fixture
def hangs(tmp_path: Path) -> Path:
    """A job that runs until it is killed, as it is uploaded."""
    return packed("hangs", tmp_path)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty one."""
    return Spool.prepare(tmp_path / "spool")


@pytest.fixture
def store(spool: Spool) -> Store:
    """The layers of that spool."""
    return Store(spool.state("layers"))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A server without a runner, and its spool."""
    with serving(tmp_path) as house:
        yield house


@pytest.fixture
def anyone(house: House) -> Iterator[Control]:
    """An anonymous client of it."""
    with house.connect() as control:
        yield control.log_in("anonymous")


@pytest.fixture
def alice(house: House) -> Iterator[Control]:
    """A contributor."""
    with house.connect() as control:
        yield control.log_in()


@pytest.fixture
def appliance(tmp_path: Path, base: BaseImage) -> Iterator[Appliance]:
    """A running appliance with a spool of its own."""
    with Appliance(tmp_path, machines.light(CONFIG)).running() as running:
        yield running


@pytest.fixture(scope="module")
def shared_appliance(tmp_path_factory: pytest.TempPathFactory, base: BaseImage) -> Iterator[Appliance]:
    """One for all tests of a module that leave each other's jobs alone."""
    with Appliance(tmp_path_factory.mktemp("appliance"), machines.light(CONFIG)).running() as running:
        yield running


@pytest.fixture(scope="module")
def usual_appliance(tmp_path_factory: pytest.TempPathFactory, base: BaseImage) -> Iterator[Appliance]:
    """Such a one whose machines are what they are by default."""
    with Appliance(tmp_path_factory.mktemp("appliance")).running() as running:
        yield running


@pytest.fixture(scope="session")
def certificate_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def certificate(certificate_files: tuple[Path, Path]) -> Path:
    """That certificate, for clients to trust."""
    return certificate_files[0]
