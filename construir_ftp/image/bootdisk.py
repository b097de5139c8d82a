"""A disk that boots by itself, by BIOS and by UEFI: partition table, GRUB, its menu, a base image's root disk as it is.

    1  construir-grub   the rest of GRUB, where the boot sector finds it ("BIOS boot partition")
    2  construir-boot   FAT: kernel, initramfs and drivers.img, GRUB's menu, and GRUB as UEFI looks for it
    3  construir-root   root.img, byte for byte

Made without root, and without mounting anything; the same base image and GRUB make the same bytes. What the menu says
is base-image/menu's business; what a machine without a host of ours does, base-image/overlay/root/alone's.

Sources: GRUB 2's util/setup.c, grub-core/boot/i386/pc/{boot,diskboot}.S for what has to be patched in; UEFI 2.10, 5.3.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec

from construir_ftp import files, process
from construir_ftp.errors import CommandError, ConstruirError
from construir_ftp.image import baseimage, drivers, initramfs, recipe, rootdisk, versions
from construir_ftp.image.baseimage import BaseImage

_SECTOR_BYTES = 512
_MIB = 2**20
_TIMEOUT_S = 300
# In MiB: where the partitions begin. Less than 32 MiB are used of the second; more is in no one's way.
_GRUB_AT, _BOOT_AT, _ROOT_AT = 1, 2, 66
ROOT_AT_BYTES = _ROOT_AT * _MIB
_SERIAL = "C0257F17"
_LABEL = "CONSTRUIR"
_ID = f"{_SERIAL}-0000-4000-8000-00000000000"
_TYPES = (
    "21686148-6449-6E6F-744E-656564454649",  # BIOS boot
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",  # EFI system
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",  # Linux root, x86-64
)
_NAMES = ("construir-grub", "construir-boot", "construir-root")

_GRUB = Path("/usr/lib/grub")
_MODULES = (
    *("part_gpt", "fat", "normal", "configfile", "linux", "search", "search_label", "serial", "terminal"),
    *("test", "echo", "ls", "cat", "reboot", "halt"),
)
# boot.S: where the boot sector's code ends, and where it has the number of core.img's first sector.
_BOOT_CODE_BYTES, _CORE_SECTOR_AT = 440, 0x5C
# diskboot.S: where that first sector, which loads the rest, has the number of the next.
_REST_SECTOR_AT = 0x1F4


def ensure(images: Path, base: BaseImage) -> BaseImage:
    """Make the disk of a version, unless it is there; returns the version as it is then. Raises ConstruirError."""
    if base.manifest.disk is not None and (base.path / baseimage.DISK).exists():
        return base
    with baseimage.holding(base), versions.draft(images, base.name) as draft:
        made = draft / baseimage.DISK
        make(base, made)
        made.chmod(0o444)
        files.fsync(made)
        part = baseimage.measure(made)
        made.rename(base.path / baseimage.DISK)
        # What the version is, its digest, has not changed: a machine of ours never sees this disk.
        manifest = msgspec.structs.replace(base.manifest, disk=part)
        content = msgspec.json.format(msgspec.json.encode(manifest))
        files.replace_durably(base.path / baseimage.MANIFEST, content, 0o444)
    return baseimage.read(base.path, base.name)


def make(base: BaseImage, target: Path) -> None:
    """Write the disk of a base image to `target`. Raises ConstruirError."""
    if base.manifest.architecture != "amd64":
        raise ConstruirError(
            f"base image '{base.name}' is for {base.manifest.architecture}; amd64 boots by itself, only"
        )
    epoch_s = int(base.manifest.date.timestamp()) if base.manifest.date else 0
    tree = target.with_name("boot")
    with rootdisk.opened(base.root) as root:
        (tree / "grub").mkdir(parents=True)
        (tree / "vmlinuz").write_bytes(root.read(f"/boot/vmlinuz-{base.manifest.kernel_release}"))
        _write_drivers(root, base, target.with_name("drivers"), tree / "drivers.img", epoch_s)
    (tree / "initrd.img").write_bytes(base.initrd.read_bytes())
    (tree / "grub" / "grub.cfg").write_text(process.run([recipe.source() / "menu"], timeout_s=_TIMEOUT_S))
    assemble(target, base.root, tree, epoch_s)


def assemble(target: Path, root: Path, tree: Path, epoch_s: int, more_modules: Sequence[str] = ()) -> None:
    """Write a disk of a root file system and of what is to be on the boot partition: `tree`, with GRUB's menu in it.

    GRUB itself, with `more_modules`, is added to both. Files are of `epoch_s`, in seconds. Raises ConstruirError.
    """
    _check_tools()
    root_mib = -(-root.stat().st_size // _MIB)
    modules = (*_MODULES, *more_modules)
    try:
        with target.open("xb") as file:
            file.truncate((_ROOT_AT + root_mib + 1) * _MIB)
        _partition(target, root_mib)
        _put_boot_code(target, _core_image(target, "i386-pc", f"(,gpt{_BOOT_AT})/grub", modules))
        (tree / "EFI" / "BOOT").mkdir(parents=True)
        loader = tree / "EFI" / "BOOT" / "BOOTX64.EFI"
        loader.write_bytes(_core_image(target, "x86_64-efi", "/grub", modules))
        files.put(
            _fat(target.with_name("boot.img"), tree, (_ROOT_AT - _BOOT_AT) * _MIB, epoch_s), target, _BOOT_AT * _MIB
        )
        files.put(root, target, ROOT_AT_BYTES)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _check_tools() -> None:
    for program, package in (("sfdisk", "fdisk"), ("mformat", "mtools"), ("grub-mkimage", "grub-common")):
        if process.find(program) is None:
            raise CommandError(f"{program}: not installed; run: apt install {package}")
    for platform, package in (("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")):
        if not (_GRUB / platform).is_dir():
            raise CommandError(f"{_GRUB / platform}: not there; run: apt install {package}")


def _partition(target: Path, root_mib: int) -> None:
    sizes = (_BOOT_AT - _GRUB_AT, _ROOT_AT - _BOOT_AT, root_mib)
    starts = (_GRUB_AT, _BOOT_AT, _ROOT_AT)
    lines = [
        f"start={start}MiB, size={size}MiB, type={kind}, uuid={_ID}{number}, name={name}\n"
        for number, (start, size, kind, name) in enumerate(zip(starts, sizes, _TYPES, _NAMES, strict=True), 1)
    ]
    script = target.with_name("partitions")
    script.write_text(f"label: gpt\nlabel-id: {_ID}0\n{''.join(lines)}")
    with script.open("rb") as table:
        process.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", target], stdin=table, timeout_s=_TIMEOUT_S)
    script.unlink()


def _core_image(target: Path, platform: str, prefix: str, modules: Sequence[str]) -> bytes:
    """GRUB with all the modules it needs, which looks for its menu below `prefix`; made beside `target`."""
    made = target.with_name("core.img")
    bios = ("biosdisk",) if platform == "i386-pc" else ()
    argv = ["grub-mkimage", f"--format={platform}", f"--prefix={prefix}", f"--output={made}", *bios, *modules]
    process.run(argv, timeout_s=_TIMEOUT_S)
    content = made.read_bytes()
    made.unlink()
    return content


def _put_boot_code(target: Path, core: bytes) -> None:
    """What grub-bios-setup(8) would do as root, to a device: the boot sector, and core.img where that looks for it."""
    boot = bytearray((_GRUB / "i386-pc" / "boot.img").read_bytes()[:_BOOT_CODE_BYTES])
    first = _GRUB_AT * _MIB // _SECTOR_BYTES
    if len(core) > (_BOOT_AT - _GRUB_AT) * _MIB:
        raise ConstruirError(f"GRUB is too large for its partition: {len(core)} bytes")
    struct.pack_into("<Q", boot, _CORE_SECTOR_AT, first)
    loaded = bytearray(core)
    struct.pack_into("<Q", loaded, _REST_SECTOR_AT, first + 1)
    with target.open("r+b") as file:
        file.write(boot)
        file.seek(first * _SECTOR_BYTES)
        file.write(loaded)


def _write_drivers(root: rootdisk.RootDisk, base: BaseImage, place: Path, target: Path, epoch_s: int) -> None:
    """What the kernel unpacks after the initramfs of our machines: drivers for all others, and `alone`."""
    found = drivers.collect(root, base.manifest.kernel_release, recipe.drivers())
    (place / "modules").mkdir(parents=True)
    for name, content in found.items():
        (place / "modules" / name).write_bytes(content)
    (place / "modules" / "alone").write_text("".join(f"{name}\n" for name in found))
    (place / "alone").write_bytes((recipe.source() / "overlay" / "root" / "alone").read_bytes())
    initramfs.pack(place, target, epoch_s)


def _fat(made: Path, tree: Path, size_bytes: int, epoch_s: int) -> Path:
    """A FAT file system with a tree of files."""
    # FAT knows nothing before 1980, and notes local time.
    env = process.environment(SOURCE_DATE_EPOCH=str(max(epoch_s, 315532800)), TZ="UTC")
    for path in tree.rglob("*"):
        os.utime(path, (epoch_s, epoch_s))
    geometry = ["-T", str(size_bytes // _SECTOR_BYTES), "-h", "16", "-s", "32"]
    process.run(
        ["mformat", "-C", "-i", made, *geometry, "-N", _SERIAL, "-v", _LABEL, "::"], timeout_s=_TIMEOUT_S, env=env
    )
    process.run(["mcopy", "-s", "-m", "-i", made, *sorted(tree.iterdir()), "::"], timeout_s=_TIMEOUT_S, env=env)
    return made
