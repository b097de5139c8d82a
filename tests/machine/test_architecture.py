"""Machines of other architectures than this host's: what they are made of, who may have one, how images are named."""

import itertools
import time
from pathlib import Path
from typing import cast

import msgspec
import pytest

from construir_ftp import architecture, process
from construir_ftp.architecture import Architecture
from construir_ftp.config import Config, ImagesSection
from construir_ftp.errors import RefusedError
from construir_ftp.image import baseimage, recipe
from construir_ftp.jobs.request import Wishes
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import DependencyError, Offer
from construir_ftp.machine import accelerator, qemu
from construir_ftp.machine.qemu import WIRES
from construir_ftp.machine.qemu_engine import QemuEngine
from construir_ftp.machine.shape import Shape, program_of
from construir_ftp.machine.vm import Machine
from tests.support import machines
from tests.support.appliance import construir
from tests.support.baseimages import publish
from tests.support.prison import check_walls, only_qemu

FOREIGN = [kind for name, kind in architecture.KNOWN.items() if name != architecture.native()]
# Debian has it, and no machine is known for it.
STRANGE = "s390x"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One image for each architecture, all without a kernel."""
    for name in (*architecture.KNOWN, STRANGE):
        publish(tmp_path / "images", f"bookworm-{name}", {"name": name}, architecture=name)
    return tmp_path / "images"


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.name)
def test_machine_is_put_together_for_the_architecture_of_its_image(images: Path, kind: Architecture) -> None:
    shape = machines.shape(images, baseimage.find(images, f"bookworm-{kind.name}"))
    argv = qemu.argv(shape, dict.fromkeys(WIRES, 3))
    options = dict(itertools.pairwise(argv))
    assert argv[0] == kind.qemu
    assert (options["-M"], options["-cpu"], options["-accel"]) == (kind.machine, kind.processor, "tcg")
    assert f"console={kind.console} " in options["-append"]
    assert "tsc" not in options["-append"]
    devices = [word.partition(",")[0] for option, word in itertools.pairwise(argv) if option == "-device"]
    plugged = [device for device in devices if device.startswith("virtio-")]
    assert plugged == [f"virtio-{what}-{kind.transport}" for what in ("rng", "blk", "blk", "serial")]


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.name)
def test_qemu_takes_all_the_devices_of_such_a_machine_and_is_jailed(images: Path, kind: Architecture) -> None:
    if process.find(kind.qemu) is None:
        pytest.skip(f"{kind.qemu} is not installed: {kind.package}")
    base = baseimage.find(images, f"bookworm-{kind.name}")
    with Machine.start(Shape.of(machines.SMALL, base, "tcg", 2**20, read_only_disks=18)) as machine:
        assert cast(QemuEngine, machine.engine).monitor().ask("query-status")["status"] == "running"
        check_walls(only_qemu())


def test_configured_emulator_is_for_the_hosts_own_architecture(images: Path) -> None:
    machine = msgspec.structs.replace(machines.SMALL, qemu="/opt/qemu")
    own, other = (baseimage.find(images, f"bookworm-{name}") for name in (architecture.native(), FOREIGN[0].name))
    assert program_of(machine, own) == "/opt/qemu"
    assert program_of(machine, other) == FOREIGN[0].qemu


def test_kvm_is_never_tried_for_another_architecture(images: Path) -> None:
    wanted = msgspec.structs.replace(machines.SMALL, accelerator="kvm")
    for kind in FOREIGN:
        choice = accelerator.choose(wanted, images, baseimage.find(images, f"bookworm-{kind.name}"))
        assert (choice.accelerator, kind.name in choice.reason) == ("tcg", True)


def test_image_that_no_machine_is_here_for_is_refused_at_the_door_and_costs_one_job_later(
    images: Path, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(Config(), images=ImagesSection(path=str(images)))
    offer = Offer.of(Spool.prepare(tmp_path / "spool"), config)
    with pytest.raises(RefusedError, match=rf"no base image 'bookworm-{STRANGE}' here; there are: bookworm-amd64"):
        offer.check(Wishes(base=f"bookworm-{STRANGE}"), 0)
    with pytest.raises(DependencyError, match=rf"can't be run here: no machine is known .*'{STRANGE}'"):
        offer.base(Wishes(base=f"bookworm-{STRANGE}"))


def test_check_says_which_architectures_can_run_here_and_what_is_missing(images: Path) -> None:
    said = construir("check", f"--images={images}").stdout
    for kind in FOREIGN:
        if process.find(kind.qemu):
            assert f"ok       machines of {kind.name}: can run here, emulated by {kind.qemu}" in said
        else:
            assert f"problem  machines of {kind.name}: none: {kind.qemu} is missing" in said
            assert f"-> apt install {kind.package}" in said


# -- what is asked of a build -------------------------------------------------------------------------------


def build_fails(*arguments: str) -> str:
    begun = time.monotonic()
    said = construir("image", "build", *arguments)
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert time.monotonic() - begun < 60  # nothing was fetched
    return said.stderr


def test_architecture_without_machines_is_an_error_that_names_those_with(tmp_path: Path) -> None:
    expected = f"no machine is known for the architecture '{STRANGE}'; there is: amd64, arm64, riscv64\n"
    assert expected in build_fails(f"trixie-{STRANGE}", f"--images={tmp_path}")
    assert expected in build_fails("--arch", STRANGE, f"--images={tmp_path}")


def test_release_that_nobody_has_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    said = build_fails("wheezy2-amd64", f"--images={tmp_path}")
    assert "'wheezy2' is no release of Debian or Ubuntu; name its archive with --mirror" in said


def test_ubuntu_is_built_only_where_its_mirror_and_keyring_are_configured(tmp_path: Path) -> None:
    said = build_fails("noble-amd64", f"--images={tmp_path}")
    assert "noble is a release of Ubuntu; set images.ubuntu_mirror and images.ubuntu_keyring" in said
    config = tmp_path / "construir.toml"
    config.write_text(
        f'[images]\nubuntu_mirror = "http://mirror.example.org"\nubuntu_keyring = "{tmp_path}/none.gpg"\n'
    )
    said = build_fails("noble-amd64", f"--images={tmp_path}", f"--config={config}")
    assert f"there is no keyring {tmp_path}/none.gpg" in said


def test_ubuntu_is_taken_from_all_its_pockets_and_by_its_own_keys(tmp_path: Path) -> None:
    keyring = tmp_path / "ubuntu.gpg"
    keyring.touch()
    told = ImagesSection(mirror="http://debian", ubuntu_mirror="http://ubuntu", ubuntu_keyring=str(keyring))
    assert recipe.archive("noble", told, None, None) == ("http://ubuntu", str(keyring))
    assert recipe.archive("trixie", told, None, None) == ("http://debian", "")
    mirror, keys = recipe.archive("noble", told, None, None)
    wanted = recipe.Recipe(name="x", suite="noble", architecture="amd64", mirror=mirror, keyring=keys)
    argv = [str(word) for word in recipe.mmdebstrap_argv(tmp_path / "root", wanted)]
    assert f"--keyring={keyring}" in argv
    assert [word for word in argv if word.startswith("deb ")] == [
        f"deb http://ubuntu {pocket} main universe" for pocket in ("noble", "noble-updates", "noble-security")
    ]
    assert any("linux-image-virtual" in word for word in argv)
