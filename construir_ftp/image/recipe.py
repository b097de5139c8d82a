"""What a base image is made from: the files of base-image/, and what the command line adds to them.

Everything that has a say in the image is part of the recipe's digest; what the archive holds on a day is not.
"""

import csv
import difflib
import fnmatch
import hashlib
import os
import re
import shlex
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import msgspec

from construir_ftp import architecture
from construir_ftp.config import ImagesSection, MachineSection
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import emulation

# Part of every recipe's digest: raise it when the builder makes something else of the same base-image/.
_BUILDER_VERSION = 5
# What is beside the recipe in base-image/ without being part of an image.
_NO_INGREDIENTS = ("README.md", "emulate", "rawmount.sh")
# What is an ingredient only of images with a user-mode kernel.
_OF_UML = "uml/"
# Suites that get no security updates of their own: they are where updates are made.
_ROLLING = ("sid", "unstable", "experimental")
DEFAULT_SUITE = "bookworm"
# Names of releases that somebody may write, of Debian and Ubuntu; and how much alike what is mistyped is (difflib).
_SUITES = ("bookworm", "bullseye", "forky", "trixie", "sid", "testing", "stable", "unstable", "jammy", "noble")
_ALIKE = 0.8
# Where /usr is merged without a package, the one that would do it, and all of Perl, can stay away.
_HOOK_DIR = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What to build: Debian's names for release and architecture, packages beside base-image/packages, the archive, and
    the size of the root disk. What is free on that is the job's to change, and what is changed is kept in memory.

    `mirror` is a URL, or a line as in sources.list(5); `keyring` a file of the keys that have to have signed it. Empty:
    Debian's own. `snapshot`, such as 20260131T000000Z, takes packages from the archive as it was then, below
    `snapshot_mirror`. `uml` is where to take a user-mode kernel from: a release, and which archive has it if not
    Debian's own, as `mirror`; empty: the image has none.
    """

    name: str
    suite: str
    architecture: str
    include: tuple[str, ...] = ()
    mirror: str = ""
    keyring: str = ""
    snapshot: str = ""
    snapshot_mirror: str = ""
    root_bytes: int = MachineSection().scratch
    uml: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.suite):
            raise UsageError(f"'{self.suite}' is no name of a release; such as {DEFAULT_SUITE}")
        architecture.find(self.architecture)
        if self.uml and self.architecture != "amd64":
            raise UsageError(f"there is a user-mode kernel for amd64 only, and the image is of {self.architecture}")
        if self.snapshot and not re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", self.snapshot):
            raise UsageError(f"'{self.snapshot}' is no time of a snapshot; such as 20260131T000000Z")
        if self.snapshot and not self.snapshot_mirror:
            raise UsageError("no mirror of snapshots is configured; set images.snapshot_mirror")
        if self.snapshot and is_ubuntu(self.suite):
            raise UsageError(f"{self.suite} is a release of Ubuntu; snapshots are of Debian's archive")

    def digest(self) -> str:
        """Changes whenever the image built from this would be another one, the archive's own changes apart."""
        wishes = (self.suite, self.architecture, sorted(self.include), self.mirror, self.snapshot)
        of_uml = (self.uml,) if self.uml else ()
        hasher = hashlib.sha256(repr((_BUILDER_VERSION, *wishes, int(self.root_bytes), *of_uml)).encode())
        for name, digest in ingredients(bool(self.uml)).items():
            hasher.update(f"{name} {digest}\n".encode())
        return hasher.hexdigest()

    def sources(self) -> list[str]:
        """The archives, as mmdebstrap(1) takes them; none leaves the choice to it."""
        if not self.snapshot:
            return self._of_ubuntu() if is_ubuntu(self.suite) else [self.mirror] if self.mirror else []
        base = self.snapshot_mirror.rstrip("/")
        # What was signed for a week may be years old; whoever uses the image's sources later needs to know that too.
        option = "[check-valid-until=no]"
        main = f"deb {option} {base}/debian/{self.snapshot}"
        if self.suite in _ROLLING:
            return [f"{main} {self.suite} main"]
        security = f"deb {option} {base}/debian-security/{self.snapshot} {self.suite}-security main"
        return [f"{main} {self.suite} main", f"{main} {self.suite}-updates main", security]

    def _of_ubuntu(self) -> list[str]:
        if " " in self.mirror:
            return [self.mirror]
        # Some of what Debian has in main is in universe there.
        pockets = (self.suite, f"{self.suite}-updates", f"{self.suite}-security")
        return [f"deb {self.mirror} {pocket} main universe" for pocket in pockets]


def ingredients(with_uml: bool = False) -> dict[str, str]:
    """Every file of the recipe: its name below base-image/, a digest of its content and of whether it is executable."""
    found = {}
    for path in sorted(source().rglob("*")):
        name = str(path.relative_to(source()))
        if path.is_file() and name not in _NO_INGREDIENTS and (with_uml or not name.startswith(_OF_UML)):
            plain, executable = digests(name)
            found[name] = executable if path.stat().st_mode & 0o111 else plain
    return found


def digests(name: str) -> tuple[str, str]:
    """What `ingredients` has for a file of this content: if it is not executable, and if it is."""
    content = (source() / name).read_bytes()
    return hashlib.sha256(b"-" + content).hexdigest(), hashlib.sha256(b"x" + content).hexdigest()


def source() -> Path:
    """base-image/: beside the package in a checkout, else where setup.cfg installs it."""
    for place in (Path(__file__).parents[2], Path(sysconfig.get_path("data")) / "share" / "construir"):
        if (place / "base-image" / "packages").is_file():
            return place / "base-image"
    raise ConstruirError("base-image/ is missing from this installation; install Construir again")


def default_name(suite: str, architecture_name: str) -> str:
    """What an image is called unless it is given a name."""
    return f"{suite}-{architecture_name}"


def meant_by(name: str) -> tuple[str, str]:
    """Suite and architecture of an image that is built by its name only: trixie, arm64 for trixie-arm64, or
    trixie-arm64-gcc.
    """
    suite, _, rest = name.partition("-")
    named = rest.partition("-")[0]
    return (suite, named) if architecture.is_one(named) else (DEFAULT_SUITE, architecture.native())


def demand_no_suite(name: str) -> None:
    """Raises UsageError where a name without an architecture may be meant to be a release's, well written or not: an
    image of that name would be of another one.
    """
    suite, _, rest = name.partition("-")
    meant = difflib.get_close_matches(suite, _SUITES, n=1, cutoff=_ALIKE)
    if meant and not architecture.is_one(rest.partition("-")[0]):
        better = default_name(meant[0], architecture.native())
        raise UsageError(f"did you mean {better}? To call an image of a release {name}, name that, too: --suite SUITE")


def kernel_package(suite: str, architecture_name: str) -> str:
    """The package of the kernel, by base-image/kernels. Raises ConstruirError where no line is for it."""
    for line in lines("kernels"):
        of_suite, of_architecture, package = line.split()
        if fnmatch.fnmatchcase(suite, of_suite) and fnmatch.fnmatchcase(architecture_name, of_architecture):
            return package
    raise ConstruirError(f"no kernel is known for {suite} on {architecture_name}; name one in {source() / 'kernels'}")


def mmdebstrap_argv(root: Path, recipe: Recipe, options: Sequence[str] = ()) -> list[str | Path]:
    """The command that makes the tree `root`, with further options, whose hooks come last; see mmdebstrap(1)."""
    packages = [*lines("packages"), kernel_package(recipe.suite, recipe.architecture), *recipe.include]
    emulated = emulation.prefix(recipe.architecture, source() / "emulate")
    return [
        *emulated,
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 or emulated else 'unshare'}",
        f"--architectures={recipe.architecture}",
        "--variant=minbase",
        "--format=directory",
        "--quiet",
        f"--hook-dir={_HOOK_DIR}",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt={source() / name}" for name in ("dpkg.cfg", "dpkg-base.cfg")),
        *([f"--keyring={recipe.keyring}"] if recipe.keyring else []),
        *(f'--customize-hook={shlex.quote(str(hook))} "$1"' for hook in sorted((source() / "hooks").iterdir())),
        *options,
        recipe.suite,
        root,
        *recipe.sources(),
    ]


def lines(name: str) -> list[str]:
    """What a list of base-image/ names, without its comments."""
    lines = (line.strip() for line in (source() / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def modules(architecture_name: str) -> list[str]:
    """The drivers of our machines' initramfs, by base-image/modules: a name, and for which architectures if not all."""
    told = [line.split() for line in lines("modules")]
    return [name for name, *only in told if not only or architecture_name in only]


def drivers() -> list[str]:
    """Those of a disk that boots by itself, by base-image/drivers."""
    return lines("drivers")


# -- suites ------------------------------------------------------------------------------------------------------

# Which archive a release is taken from: Debian's, or Ubuntu's where its mirror and keys are configured.
# The names are those of Debian's distro-info-data, which mmdebstrap goes by too.
_LISTS = Path("/usr/share/distro-info")
# Names that change hands.
_ROLES = ("stable", "testing", "unstable", "oldstable", "oldoldstable")


def archive(suite: str, settings: ImagesSection, mirror: str | None, keyring: str | None) -> tuple[str, str]:
    """Mirror and keyring for a release: those given, else those configured; empty is Debian's own.

    Raises UsageError where nothing says where the release is to be had.
    """
    if suite in _series("ubuntu"):
        mirror, keyring = mirror or settings.ubuntu_mirror, keyring or settings.ubuntu_keyring
        if not (mirror and keyring):
            raise UsageError(f"{suite} is a release of Ubuntu; set images.ubuntu_mirror and images.ubuntu_keyring")
    else:
        mirror = settings.mirror if mirror is None else mirror
        keyring = settings.keyring if keyring is None else keyring
        if not mirror and _series("debian") and suite not in _series("debian") and suite not in _ROLES:
            raise UsageError(f"'{suite}' is no release of Debian or Ubuntu; name its archive with --mirror")
    if keyring and not Path(keyring).is_file():
        raise UsageError(f"there is no keyring {keyring}; install it, or name another one")
    return mirror, keyring


def is_ubuntu(suite: str) -> bool:
    """Whether it is a release of Ubuntu."""
    return suite in _series("ubuntu")


def _series(distribution: str) -> list[str]:
    """The releases of a distribution, by the names that archives have; none where nobody knows them."""
    try:
        with (_LISTS / f"{distribution}.csv").open(encoding="utf-8", newline="") as file:
            return [row["series"] for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
