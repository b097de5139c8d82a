"""Packages that jobs ask for, through the whole appliance: some fail, some are hostile, ten want one at once."""

import ftplib
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.store import ARCHIVES
from tests.support import machines
from tests.support.appliance import CONFIG, WARM, Appliance, construir
from tests.support.debarchive import DebArchive
from tests.support.images import run
from tests.system.test_dependencies import upload

LAYERS = '[layers]\nmax_installed = "64MiB"\ntimeout = "60s"\n'
HOSTS_APT = re.compile(r'"/(etc/apt|var/lib/apt|var/cache/apt|var/lib/dpkg)')
USES_APT = """
import sys
from pathlib import Path
from construir_ftp.image import baseimage
from construir_ftp.layers.apt import Archive
archive = Archive(Path(sys.argv[1]), baseimage.find(Path(sys.argv[2]), sys.argv[3]))
archive.refresh()
archive.fetch(archive.resolve(("wanted",)))
"""
# So many that what dpkg says of them is longer than a reason.
MOONS = 12
# What programs read when they run, and what only people do. A maintainer script makes a link where a manual page would
# be.
KEPT = (
    "usr/share/locale/locale.alias",
    "usr/share/locale/de/LC_MESSAGES/learned.mo",
    "usr/share/doc/learned/copyright",
    "usr/share/doc/learned/examples/a/b",
    "usr/share/lintian/profiles/learned",
    "usr/lib/modules/1/kernel/drivers/leds/learned.ko",
)
LEFT_OUT = (
    "usr/share/doc/learned/README",
    "usr/share/info/learned.info.gz",
    "usr/share/lintian/overrides/learned",
    "usr/share/man/man1/learned.1.gz",
    "usr/share/man/de/man1/learned.1.gz",
)
LEARNED = "ln -s ../../doc/learned/copyright /usr/share/man/de/man1/link"
# In the place of tar, which would pack what the machine has installed.
AS_TAR = "printf '#!/bin/sh\\n%s\\n' '{}' >/usr/bin/tar"


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory, base: BaseImage) -> Iterator[Appliance]:
    """An appliance with an archive of its own."""
    place = tmp_path_factory.mktemp("packaged")
    archive = DebArchive(place / "archive")
    archive.add("learned", LEARNED, others=(*KEPT, *LEFT_OUT))
    archive.add("mover", "mv /usr/share/base-files /usr/share/moved")
    archive.add("lesser", conflicts="less", replaces="less", others=("usr/bin/less",))
    archive.add("wanted", "ls /sys/class/net >/usr/share/interfaces")
    archive.add("garbler", AS_TAR.format("echo garbage >/job/layer.tar"))
    archive.add("linker", AS_TAR.format("ln -s /etc/passwd /job/layer.tar"))
    archive.add("withholder", AS_TAR.format("exit 0"))
    archive.add("sleeper", "sleep 3600")
    appliance = Appliance(place, CONFIG + LAYERS)
    archive.serve(Spool.prepare(appliance.spool).path, base)
    with appliance.running():
        yield appliance


@pytest.fixture(scope="module")
def light_packaged(tmp_path_factory: pytest.TempPathFactory, light_base: BaseImage) -> Iterator[Appliance]:
    """Another one, whose machines are user-mode ones, if there are any here."""
    place = tmp_path_factory.mktemp("light")
    archive = DebArchive(place / "archive")
    archive.add("mover", "mv /usr/share/base-files /usr/share/moved")
    archive.add("replacer", "cd /usr/share; rm -r base-files; mkdir -p base-files new; echo >new/motd")
    archive.add("maker", "mkdir -p /usr/share/new; cp /usr/share/base-files/motd /usr/share/new")
    archive.add("moonstruck", "echo the moon is in the wrong phase >&2; exit 7")
    for number in range(MOONS):
        archive.add(f"moon-of-a-planet-far-away-{number}", depends="moonstruck")
    archive.add("heavy", installed_kib=200 * 1024)
    archive.add("laden", depends="heavy")
    archive.add("wanted")
    archive.add("common")
    appliance = Appliance(place, machines.light(CONFIG + LAYERS))
    archive.serve(Spool.prepare(appliance.spool).path, light_base)
    with appliance.running():
        yield appliance


def asking(place: Path, *packages: str, script: str = "true") -> Path:
    """A job that wants packages, as it is uploaded."""
    return upload(place, script, f"[dependencies]\npackages = {list(packages)}")


def layers(appliance: Appliance) -> list[str]:
    return sorted(path.name for path in (appliance.spool / "layers").glob("[!.]*"))


def test_set_over_the_size_limit_is_refused_at_the_door_by_name(light_packaged: Appliance, tmp_path: Path) -> None:
    file = asking(tmp_path / "job", "laden", "wanted")
    with light_packaged.session() as ftp, file.open("rb") as data, pytest.raises(ftplib.error_perm) as refused:
        ftp.storbinary("STOR /queue/job.img.zst", data)
    assert str(refused.value) == (
        "550 Refused: construir.toml: dependencies.packages: laden, wanted with all they need take 200 MiB,"
        " heavy alone 200 MiB; at most 64 MiB can be had here"
    )


def test_package_that_fails_brings_all_that_was_said_with_the_result_and_what_matters_in_the_reason(
    light_packaged: Appliance, tmp_path: Path
) -> None:
    before = layers(light_packaged)
    job = light_packaged.submit(
        asking(tmp_path / "job", *(f"moon-of-a-planet-far-away-{number}" for number in range(MOONS)))
    )
    result = light_packaged.wait(job)
    assert result["status"] == "dependency-failed"
    assert "the moon is in the wrong phase" in result["reason"]
    assert "post-installation script subprocess returned error exit status 7" in result["reason"]
    assert result["reason"].endswith("; all of it is in install.log")
    said = light_packaged.fetch(job, "install.log")
    assert all(word in said for word in (b"Unpacking moonstruck", b"the moon is in the wrong phase", b"far-away-11"))
    assert f"{hashlib.sha256(said).hexdigest()}  install.log" in light_packaged.fetch(job, "SHA256SUMS").decode()
    assert layers(light_packaged) == before


def test_job_by_hand_shows_what_a_package_that_fails_has_said(light_packaged: Appliance, tmp_path: Path) -> None:
    file = asking(tmp_path / "job", "moonstruck")
    where = (f"--config={light_packaged.config}", f"--spool={light_packaged.spool}")
    ran = construir("run", file, "-o", tmp_path / "result", *where)
    assert "Unpacking moonstruck" in ran.stdout
    assert ran.stderr.startswith("construir: getting ready what it depends on: moonstruck\n")
    assert "dependency-failed" in ran.stderr
    built = construir("layer", "build", "moonstruck", *where)
    assert built.returncode == 1
    assert "Unpacking moonstruck" in built.stderr


def test_package_keeps_all_that_programs_open_and_directories_and_what_was_renamed_stays_so(
    packaged: Appliance, tmp_path: Path
) -> None:
    rename = """perl -e 'rename $ARGV[0], $ARGV[1] or die "$ARGV[0]: $!\\n"'"""
    script = f"""
        cd /; ls {" ".join(KEPT)} usr/share/man/de/man1/link || exit 1
        for file in {" ".join(LEFT_OUT)}; do [ -d ${{file%/*}} ] && [ ! -e $file ] || exit 2; done
        [ -s usr/share/moved/motd ] && [ ! -e usr/share/base-files ] || exit 3
        {rename} usr/share/doc/learned usr/share/doc/renamed || exit 4
        {rename} usr/share/moved usr/lib/again || exit 5
        {rename} usr/share/perl5 usr/perl5 || exit 6
        [ -s usr/share/doc/renamed/copyright ] && [ -s usr/lib/again/motd ] && [ -d usr/perl5/Debconf ] || exit 7
    """
    job = packaged.submit(asking(tmp_path / "job", "learned", "mover", script=script))
    assert packaged.wait(job)["status"] == "success", packaged.fetch(job, "output.log")


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("mover", "they rename a directory of the base image, to /usr/share/moved; a user-mode machine would not see"),
        (
            "replacer",
            "they replace a directory of the base image, /usr/share/base-files; a user-mode machine would not",
        ),
        ("maker", "run.sh ended with exit status 0"),
    ],
    ids=["renamed", "replaced", "new"],
)
def test_layer_that_a_user_mode_machine_would_show_otherwise_is_none(
    light_packaged: Appliance, light_base: BaseImage, tmp_path: Path, package: str, reason: str
) -> None:
    if not light_base.manifest.uml:
        pytest.skip("no user-mode machine runs here")
    result = light_packaged.wait(
        light_packaged.submit(asking(tmp_path / "job", package, script="[ -s /usr/share/new/motd ]"))
    )
    assert reason in result["reason"]
    assert result["status"] == ("success" if package == "maker" else "dependency-failed")


def test_package_that_conflicts_with_one_of_the_base_image_takes_its_place(packaged: Appliance, tmp_path: Path) -> None:
    script = "cat /usr/bin/less; [ ! -e /usr/bin/lesskey ] && dpkg --audit && dpkg-query -Wf '${Status}' less"
    job = packaged.submit(asking(tmp_path / "job", "lesser", script=script))
    assert packaged.wait(job)["status"] == "success", packaged.fetch(job, "output.log")
    assert packaged.fetch(job, "output.log") == b"usr/bin/less of lesser\nunknown ok not-installed"


def test_operator_has_a_set_ready_before_the_first_job_asks(light_packaged: Appliance, tmp_path: Path) -> None:
    build = ("layer", "build", "common", f"--config={light_packaged.config}", f"--spool={light_packaged.spool}")
    (name, digest), again = (construir(*build, check=True).stdout.split() for _ in range(2))
    assert again == [name, digest]
    result = light_packaged.wait(
        light_packaged.submit(asking(tmp_path / "job", "common", script="cat /usr/share/common"))
    )
    assert (result["status"], result["used"]["layers"][0]["name"]) == ("success", name)
    listed = construir("layer", "list", f"--spool={light_packaged.spool}").stdout
    assert f"{digest.removeprefix('sha256:')[:12]}" in listed
    assert re.search(rf"^ *{name} .* common \(\d+ packages?\)$", listed, re.MULTILINE), "it says what was asked for"
    assert "asked for: common\n" in construir("layer", "show", name, f"--spool={light_packaged.spool}").stdout
    assert f"layer {name}: made of" not in light_packaged.log.read_text()


@pytest.mark.slow("each has a machine install a package")
@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("garbler", "they packed no proper tar file"),
        ("linker", "they left no tar file"),
        ("withholder", "they left no tar file"),
        ("sleeper", r"could not be installed \(timeout after 1 min\)"),
    ],
)
def test_hostile_maintainer_script_makes_no_layer_and_harms_its_own_job_only(
    request: pytest.FixtureRequest, packaged: Appliance, tmp_path: Path, package: str, reason: str
) -> None:
    before = layers(packaged)
    result = packaged.wait(packaged.submit(asking(tmp_path / "job", package)))
    assert result["status"] == "dependency-failed"
    assert re.search(reason, result["reason"]), result["reason"]
    assert "/layers/" not in result["reason"]
    assert layers(packaged) == before
    assert list((packaged.spool / "layers").glob(".draft-*")) == []


@pytest.mark.slow("ten jobs take a minute under emulation")
def test_ten_jobs_that_ask_at_once_for_one_new_set_have_it_built_once_and_without_network(
    request: pytest.FixtureRequest, packaged: Appliance, tmp_path: Path
) -> None:
    script = "cat /usr/share/interfaces; dpkg-query --show --showformat '${Package} ${Status}' wanted; dpkg --audit"
    file = asking(tmp_path / "job", "wanted", script=script)
    jobs = [packaged.submit(file) for _ in range(10)]
    results = [packaged.wait(job) for job in jobs]
    assert {result["status"] for result in results} == {"success"}
    assert {packaged.fetch(job, "output.log") for job in jobs} == {b"lo\nwanted install ok installed"}
    ((layer,),) = {tuple(layer["name"] for layer in result["used"]["layers"]) for result in results}
    assert packaged.log.read_text().count(f"layer {layer}: made of 1 packages") == 1
    assert {result["used"]["layers"][0]["contents"][0] for result in results} == {"wanted:all=1.0"}


@pytest.mark.slow("nine layers, and machines that are warm, take a minute under emulation")
def test_warm_machine_has_packages_eight_layers_and_a_result_at_once_and_the_result_names_each_version(
    request: pytest.FixtureRequest, tmp_path: Path, base: BaseImage
) -> None:
    archive = DebArchive(tmp_path / "archive")
    archive.add("wanted")
    appliance = Appliance(tmp_path, WARM + LAYERS)
    archive.serve(Spool.prepare(appliance.spool).path, base)
    with appliance.running():
        made = "echo it >made; for n in 0 1 2 3 4 5 6 7; do d=out$n/usr/share/l; mkdir -p $d; echo l$n >$d/$n; done"
        first = appliance.submit(upload(tmp_path / "first", made, 'name = "first"'))
        assert appliance.wait(first)["status"] == "success"
        names = [f"l{number}" for number in range(8)]
        versions = [published(appliance, first, name) for name in names]
        needs = f'[dependencies]\npackages = ["wanted"]\nresults = ["{first}"]\nlayers = {names}'
        file = upload(tmp_path / "second", "cat /usr/share/l/* /usr/share/wanted /deps/first/made", needs)
        for _ in range(6):  # until there is a template for machines with so many disks
            job = appliance.submit(file)
            result = appliance.wait(job)
            assert (result["status"], appliance.fetch(job, "output.log").decode().split("\n")) == (
                "success",
                [*names, "this is wanted", "it", ""],
            )
            if result["boot_path"] != "cold":
                break
        assert result["boot_path"] in ("warm", "pooled")
        packages, *layers = result["used"]["layers"]
        assert packages["contents"] == ["wanted:all=1.0"]
        assert [(layer["name"], layer["contents"]) for layer in layers] == [(name, [first]) for name in versions]
        assert all(layer["sha256"] for layer in layers)
        assert result["used"]["results"] == [first]
        # The construir.toml that comes back asks for just these versions, whatever is published later.
        resolved = appliance.fetch(job, "construir.toml").decode()
        assert all(f'"{name}"' in resolved for name in versions)
        again = appliance.wait(appliance.submit(upload(tmp_path / "again", "cat /usr/share/l/*", resolved)))
        assert (again["status"], again["used"]) == ("success", result["used"])


def published(appliance: Appliance, job: str, name: str) -> str:
    """Publish out<digit> of a result as the layer l<digit>; its name with its version."""
    spool = f"--spool={appliance.spool}"
    said = construir("layer", "publish", job, name, f"--path=out{name[1:]}", spool, check=True)
    return said.stdout.split()[0]


def test_apt_of_the_host_is_left_alone(tmp_path: Path, base: BaseImage, images: Path) -> None:
    archive = DebArchive(tmp_path / "archive")
    archive.add("wanted")
    spool = Spool.prepare(tmp_path / "spool").path
    archive.serve(spool, base)
    calls = "openat,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,linkat,symlink,symlinkat,truncate"
    traced = ("strace", "-f", "-qq", "-e", f"trace={calls}", "-o", tmp_path / "calls")
    run(*traced, sys.executable, "-c", USES_APT, spool / "layers" / ARCHIVES, images, base.name)
    written = [
        call
        for call in (tmp_path / "calls").read_text().splitlines()
        if "O_RDONLY" not in call and "= -1 " not in call and HOSTS_APT.search(call)
    ]
    assert written == []
    assert "wanted_1.0_all.deb" in (tmp_path / "calls").read_text()
