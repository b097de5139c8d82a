"""A Debian that somebody else made becomes a base image; what is none, or means harm, is refused in one line."""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp import architecture
from construir_ftp.appliance.refresher import Refresher
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import baseimage, bootdisk, importer, recipe, rootdisk, versions
from construir_ftp.image.baseimage import BaseImage
from tests.support import disks
from tests.support.appliance import construir
from tests.support.images import MIB, run
from tests.support.places import JOBS

RELEASE = "6.1.0-1-amd64"
STATUS = """Package: dpkg
Status: install ok installed
Architecture: {architecture}
Version: 1.21

Package: gone
Status: deinstall ok config-files
Version: 1
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Base images of our own."""
    return tmp_path / "images"


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    """A tree with all that is looked at before the self-test, which it would not pass."""
    tree, place = tmp_path / "debian", "x86_64-linux-gnu"
    for path, content in {
        "etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n",
        "etc/shadow": "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n",
        "etc/ssh/ssh_host_rsa_key": "secret",
        "etc/machine-id": "0123\n",
        "etc/fstab": "its own\n",
        "var/lib/dpkg/status": STATUS.format(architecture=architecture.native()),
        f"boot/vmlinuz-{RELEASE}": "kernel",
        f"boot/vmlinuz-{RELEASE.replace('1-', '10-')}": "newer",
        f"lib/modules/{RELEASE}/modules.dep": "kernel/virtio_blk.ko: kernel/virtio.ko\nkernel/virtio.ko:\n"
        "kernel/sum-generic.ko:\n",
        f"lib/modules/{RELEASE}/modules.softdep": "softdep virtio-blk pre: crypto-sum post: late\n",
        f"lib/modules/{RELEASE}/modules.alias": "# made\nalias crypto-sum sum_generic\nalias pci:v* virtio_pci\n",
        f"lib/modules/{RELEASE}/kernel/sum-generic.ko": "sum",
        f"lib/modules/{RELEASE}/kernel/virtio.ko": "ring",
        f"lib/modules/{RELEASE}/kernel/virtio_blk.ko": "disk",
        f"usr/lib/{place}/perl-base/strict.pm": "1;",
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    (tree / "usr/bin").mkdir()
    shutil.copy("/usr/bin/perl", tree / "usr/bin/perl")
    (tree / "lib64").mkdir()
    for library in ("libc.so.6", "libm.so.6", "libcrypt.so.1"):
        (tree / "lib" / place).mkdir(exist_ok=True)
        shutil.copy(f"/lib/{place}/{library}", tree / "lib" / place / library)
    shutil.copy("/lib64/ld-linux-x86-64.so.2", tree / "lib" / place)
    (tree / "lib64/ld-linux-x86-64.so.2").symlink_to(f"/lib/{place}/ld-linux-x86-64.so.2")
    return tree


def disk_of(tree: Path, place: Path, *others: Path) -> Path:
    """A raw disk whose root partition holds a tree."""
    place.mkdir()
    return disks.partitioned(place / "disk.raw", [*others, disks.ext(place / "root", tree, "48M")])


def refused(file: Path, own: Path) -> str:
    """Why it is; nothing of it is left, and the message is one line."""
    with pytest.raises(ConstruirError) as caught:
        importer.adopt(own, file, "premade", lambda base: None)
    said = str(caught.value)
    assert "\n" not in said
    assert baseimage.names(own) == []
    assert versions.leftovers(own) == []
    assert versions.every(own, "premade") == []
    return said


# -- what is taken ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["qcow2", "raw"])
def imported(
    request: pytest.FixtureRequest, images: Path, base: BaseImage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BaseImage]:
    """The disk that boots by itself, imported by the command as if somebody else had made it."""
    if request.param == "raw" and not request.config.getoption("--all"):
        pytest.skip("one format is enough: both only with --all")
    place = tmp_path_factory.mktemp("imported")
    file = place / f"premade.{request.param}"
    run(
        "qemu-img",
        "convert",
        "-f",
        "raw",
        "-O",
        request.param,
        bootdisk.ensure(images, base).path / baseimage.DISK,
        file,
    )
    argv = [sys.executable, "-m", "construir_ftp", "image", "import", str(file), f"--images={place / 'images'}"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    assert said.returncode == 0, said.stderr
    yield baseimage.find(place / "images", "premade")
    shutil.rmtree(place)


def test_imported_image_has_passed_its_self_test_and_runs_jobs(imported: BaseImage, tmp_path: Path) -> None:
    place = imported.path.parents[2]
    config = tmp_path / "construir.toml"
    config.write_text('[images]\ndefault = "premade"\n')
    job = construir("run", JOBS / "hello", "-o", tmp_path / "r", f"--images={place}", f"--config={config}")
    assert job.returncode == 0, job.stderr
    assert job.stdout.startswith("hello from Linux")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["base_image"]["digest"] == imported.manifest.digest()


def test_imported_image_is_described_by_what_is_in_it(imported: BaseImage, base: BaseImage) -> None:
    ours, told = base.manifest, imported.manifest
    assert (told.suite, told.architecture, told.kernel_release) == (ours.suite, ours.architecture, ours.kernel_release)
    assert told.packages == {name.partition(":")[0]: version for name, version in ours.packages.items()}
    assert told.imported.startswith("sha256:")


def test_imported_image_is_never_replaced_by_a_built_one(imported: BaseImage) -> None:
    images = imported.path.parents[2]
    refused = construir("image", "build", "--refresh", "premade", f"--images={images}")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "was imported" in refused.stderr
    refresher = Refresher(images, 1e-9, ["false"])
    refresher.look()
    assert not list(images.glob(".refreshed-*"))


def test_what_makes_a_worker_is_added_and_secrets_are_removed(debian: Path, tmp_path: Path, own: Path) -> None:
    base = importer.adopt(own, disk_of(debian, tmp_path / "disk"), "premade", lambda base: None)
    overlay = recipe.source() / "overlay"
    with rootdisk.opened(base.root) as root:
        for name in ("root/runjob", "root/shell", "usr/local/sbin/poweroff", "etc/profile.d/job.sh"):
            assert root.read(f"/{name}") == (overlay / name).read_bytes()
        assert root.text("/etc/fstab") == "its own\n"
        assert root.text("/etc/shadow").startswith("root:$6$construir$")
        assert root.names("/etc/ssh") == []
        assert {"job", "deps"} <= set(root.names("/"))
        runjob, shadow = root.find("/root/runjob"), root.find("/etc/shadow")
        assert runjob is not None
        assert shadow is not None
        assert (runjob.mode & 0o777, shadow.mode & 0o777) == (0o755, 0o640)
    assert "/run/machine-id" in run("debugfs", "-R", "stat /etc/machine-id", base.root)
    features = run("dumpe2fs", "-h", base.root)
    assert "has_journal" not in features
    assert base.manifest.packages == {"dpkg": "1.21"}
    assert base.kernel.read_text() == "kernel", "of the newest kernel with drivers"
    packed = base.initrd.read_bytes()
    names = subprocess.run(["cpio", "-t"], input=packed, capture_output=True, check=True).stdout
    assert {"init", "usr/bin/perl", "modules/virtio.ko", "modules/virtio_blk.ko"} <= set(names.decode().split())
    assert b"sum_generic.ko\nvirtio.ko\nvirtio_blk.ko\n" in packed, "in the order in which the kernel takes them"


def test_file_system_without_partitions_is_taken_too(debian: Path, tmp_path: Path, own: Path) -> None:
    base = importer.adopt(own, disks.ext(tmp_path / "root", debian, "48M"), "premade", lambda base: None)
    assert base.manifest.packages == {"dpkg": "1.21"}
    assert baseimage.find(own, "premade").path == base.path


def test_other_partitions_do_not_matter(debian: Path, tmp_path: Path, own: Path) -> None:
    (tmp_path / "file").write_text("efi")
    disk = disk_of(debian, tmp_path / "d", disks.fat(tmp_path / "fat", tmp_path / "file"))
    base = importer.adopt(own, disk, "premade", lambda base: None)
    assert base.manifest.packages == {"dpkg": "1.21"}
    assert baseimage.find(own, "premade").path == base.path


def test_disk_that_has_grown_since_it_was_partitioned_is_taken(debian: Path, tmp_path: Path, own: Path) -> None:
    disk = disk_of(debian, tmp_path / "disk")
    os.truncate(disk, disk.stat().st_size + 64 * MIB)  # as qemu-img resize does
    base = importer.adopt(own, disk, "premade", lambda base: None)
    assert base.manifest.packages == {"dpkg": "1.21"}
    assert baseimage.find(own, "premade").path == base.path


@pytest.mark.slow("it takes minutes to put a Debian together")
def test_stock_debian_with_systemd_and_its_generic_kernel_becomes_a_base_image(
    tmp_path: Path, own: Path, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can put a Debian into a file system as its files' owners")
    packages = "linux-image-amd64,systemd-sysv,openssh-server"
    options = ["--quiet", "--mode=root", "--variant=minbase", f"--include={packages}"]
    subprocess.run(["mmdebstrap", *options, "bookworm", tmp_path / "tree"], check=True, timeout=3600)
    (tmp_path / "efi").write_text("not looked at")
    root = disks.ext(tmp_path / "root", tmp_path / "tree", "2G")
    disk = disks.partitioned(tmp_path / "disk.raw", [disks.fat(tmp_path / "fat", tmp_path / "efi"), root])
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", disk, tmp_path / "stock.qcow2")
    argv = [sys.executable, "-m", "construir_ftp", "image", "import", tmp_path / "stock.qcow2", f"--images={own}"]
    said = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=600, check=False)
    assert said.returncode == 0, said.stderr
    base = baseimage.find(own, "stock")
    assert "systemd" in base.manifest.packages
    with rootdisk.opened(base.root) as disk_now:
        assert disk_now.names("/etc/ssh") != []
        assert not [name for name in disk_now.names("/etc/ssh") if name.startswith("ssh_host_")]


# -- what is refused -------------------------------------------------------------------------------------------


def test_image_that_fails_its_self_test_never_goes_live(debian: Path, tmp_path: Path, own: Path) -> None:
    disk = disk_of(debian, tmp_path / "disk")
    live = importer.adopt(own, disk, "premade", lambda base: None)
    (debian / "etc" / "more").touch()
    other = disk_of(debian, tmp_path / "other")
    failed = construir("image", "import", other, "--name", "premade", f"--images={own}")
    assert failed.returncode != 0
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert baseimage.find(own, "premade").path == live.path
    assert len(versions.every(own, "premade")) == 1


def test_two_root_partitions_are_refused(debian: Path, tmp_path: Path, own: Path) -> None:
    disk = disk_of(debian, tmp_path / "disk", disks.ext(tmp_path / "boot", JOBS / "hello"))
    assert refused(disk, own) == f"{disk}: 2 of its partitions hold an ext file system; one, the root, is expected"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("etc/os-release", "no Debian"),
        ("var/lib/dpkg/status", "no Debian"),
        (f"boot/vmlinuz-{RELEASE}", "no kernel"),
        (f"lib/modules/{RELEASE}/modules.dep", "no kernel"),
        (f"lib/modules/{RELEASE}/kernel/virtio.ko", "virtio.ko"),
        ("usr/bin/perl", "no Perl"),
        ("lib64/ld-linux-x86-64.so.2", "ld-linux"),
        ("etc/shadow", "/etc/shadow"),
    ],
)
def test_what_lacks_what_a_worker_needs_is_refused(
    debian: Path, tmp_path: Path, own: Path, missing: str, said: str
) -> None:
    (debian / missing).unlink()
    assert said in refused(disk_of(debian, tmp_path / "disk"), own)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no partition with an ext2, ext3 or ext4 file system"),
        (b"\x00" * MIB, "no partition with an ext2, ext3 or ext4 file system"),
        (random.Random(1).randbytes(MIB), "no partition with an ext2, ext3 or ext4 file system"),
        (b"QFI\xfb" + bytes(600), "qemu-img can't read it as qcow2"),
    ],
)
def test_garbage_is_refused(tmp_path: Path, own: Path, content: bytes, said: str) -> None:
    (tmp_path / "garbage").write_bytes(content)
    assert said in refused(tmp_path / "garbage", own)


def test_what_is_no_file_is_refused(tmp_path: Path, own: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "pipe"):
        assert refused(path, own) == f"{path}: no such file"


def test_qcow2_that_names_a_file_of_the_host_is_refused(tmp_path: Path, own: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    backed, external = tmp_path / "backed", tmp_path / "external"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", backed)
    assert "backing file" in refused(backed, own)
    options = f"data_file={tmp_path / 'data'},data_file_raw=on"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, external, "1M")
    assert "data file" in refused(external, own)


def test_qcow2_that_is_vast_or_cut_is_refused(debian: Path, tmp_path: Path, own: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "vast", "100T")
    assert "GiB" in refused(tmp_path / "vast", own)
    cut = tmp_path / "cut"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk_of(debian, tmp_path / "disk"), cut)
    os.truncate(cut, cut.stat().st_size // 2)
    assert "no Debian on its root partition" in refused(cut, own)


def test_partition_that_ends_after_the_disk_is_refused(debian: Path, tmp_path: Path, own: Path) -> None:
    disk = disk_of(debian, tmp_path / "disk")
    os.truncate(disk, disk.stat().st_size // 2)
    assert "no partition with an ext2, ext3 or ext4 file system" in refused(disk, own)


def test_names_in_the_image_lead_nowhere_else(debian: Path, tmp_path: Path, own: Path) -> None:
    """Links to the host's files, a loop, and a driver and a loader whose names climb."""
    (tmp_path / "secret").write_text("ID=debian\n")
    (debian / "etc/os-release").unlink()
    (debian / "etc/os-release").symlink_to("../" * 20 + str(tmp_path / "secret"))
    assert "no Debian" in refused(disk_of(debian, tmp_path / "one"), own)
    (debian / "etc/os-release").unlink()
    (debian / "etc/os-release").symlink_to("os-release")
    assert "no Debian" in refused(disk_of(debian, tmp_path / "two"), own)
    (debian / "etc/os-release").unlink()
    (debian / "etc/os-release").write_text("ID=debian\n")
    perl = (debian / "usr/bin/perl").read_bytes()
    climbing = b"/../../../../tmp/evil.so.2".ljust(len(b"/lib64/ld-linux-x86-64.so.2"), b"\0")
    (debian / "usr/bin/perl").write_bytes(perl.replace(b"/lib64/ld-linux-x86-64.so.2", climbing))
    base = importer.adopt(own, disk_of(debian, tmp_path / "three"), "premade", lambda base: None)
    names = subprocess.run(["cpio", "-t"], input=base.initrd.read_bytes(), capture_output=True, check=True).stdout
    assert b".." not in names
    assert b"evil" not in names


def test_spoiled_images_end_in_one_line_or_a_base_image(
    debian: Path, tmp_path: Path, own: Path, request: pytest.FixtureRequest
) -> None:
    disk = disk_of(debian, tmp_path / "disk").read_bytes()
    metadata = range(MIB, 3 * MIB)
    for seed in range(100 if request.config.getoption("--all") else 4):
        choose = random.Random(seed)
        spoiled = bytearray(disk)
        for _ in range(choose.choice([1, 10, 1000])):
            struct.pack_into("B", spoiled, choose.choice(metadata), choose.randrange(256))
        (tmp_path / "spoiled").write_bytes(spoiled)
        try:
            importer.adopt(own, tmp_path / "spoiled", "premade", lambda base: None)
        except ConstruirError as error:
            assert "\n" not in str(error)
        assert versions.leftovers(own) == []


def test_name_that_is_none_is_refused(tmp_path: Path, own: Path) -> None:
    with pytest.raises(UsageError, match="no name"):
        importer.adopt(own, tmp_path / "file", "../up", lambda base: None)
