"""The public keys that results are signed with, on the site: the files that FTP has at its root."""

from contextlib import suppress
from pathlib import Path

from construir_ftp.errors import ConfigError
from construir_ftp.site.tree import Tree
from construir_ftp.trust import key_place


def put(tree: Tree, spool: Path) -> list[str]:
    """Have them in the site's directory, and no others; returns the keys' fingerprints, that of today first."""
    shown = key_place.published(spool)
    for name in key_place.SHOWN:
        if name in shown:
            tree.put(name, shown[name])
        else:
            tree.remove(name)
    with suppress(ConfigError):  # a file without a key
        return [key.fingerprint for key in key_place.known(spool)]
    return []
