"""Which archive a release is taken from: Debian's, or Ubuntu's where its mirror and keys are configured.

The names are those of Debian's distro-info-data, which mmdebstrap goes by too.
"""

import csv
from pathlib import Path

from construir_ftp.config import ImagesSection
from construir_ftp.errors import UsageError

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
