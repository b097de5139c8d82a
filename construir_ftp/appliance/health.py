"""How the appliance is, for anyone to read: what of `check` costs little and holds in any process, without its paths.

What to do about it is for operators alone, and told by `construir check`.
"""

import re
from collections.abc import Callable, Iterator

from construir_ftp.appliance import check, exposure
from construir_ftp.appliance.finding import Finding
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage
from construir_ftp.site import conditions

_PATH = re.compile(r"(?<![\w.:])/[^\s,;:()]*")
_ADVICE = re.compile(r"; run: .*")


def look(config: Config) -> list[conditions.Finding]:
    """Base image, disk, certificate."""
    looks: list[Callable[[Config], Iterator[Finding]]] = [_base_image, check.free_space, exposure.certificate_ends]
    return [_public(found, config) for look_at in looks for found in look_at(config)]


def _base_image(config: Config) -> Iterator[Finding]:
    """Whether it is there; the runner proves it before each job, and takes none where it is damaged."""
    try:
        base = baseimage.find(config.images_path(), config.images.default)
    except ConstruirError as error:
        yield Finding("base image", "problem", str(error))
    else:
        yield Finding("base image", "ok", f"{base.name}, {len(base.manifest.packages)} packages")


def _public(found: Finding, config: Config) -> conditions.Finding:
    text = _ADVICE.sub("", found.text)
    for path, name in ((config.images_path(), "the images"), (config.spool_path(), "the spool")):
        text = text.replace(str(path), name)
    text = _PATH.sub("a file of this host", text)
    return conditions.Finding(found.state, found.subject[:1].upper() + found.subject[1:], text)
