"""A small Debian archive of our own, for packages that no Debian has: its packages are on this disk, and made here."""

import hashlib
from pathlib import Path

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers.apt import Archive
from construir_ftp.layers.store import ARCHIVES
from tests.support.images import run


class DebArchive:
    """Packages in a directory, and the list of them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()

    def add(
        self, name: str, postinst: str = "", installed_kib: int = 1, others: tuple[str, ...] = (), **fields: str
    ) -> None:
        """Add a package with the file /usr/share/NAME and others; `postinst` is run, as root, when it is installed.

        Of its control file's fields are given those that name other packages, such as `depends`.
        """
        tree = self.place / f"{name}.tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share").mkdir(parents=True)
        (tree / "usr/share" / name).write_text(f"this is {name}\n")
        for other in others:
            (tree / other).parent.mkdir(parents=True, exist_ok=True)
            (tree / other).write_text(f"{other} of {name}\n")
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Alice <alice@example.org>\n"
            f"Installed-Size: {installed_kib}\nDescription: a package\n"
            + "".join(f"{field.capitalize()}: {names}\n" for field, names in fields.items())
        )
        if postinst:
            (tree / "DEBIAN/postinst").write_text(f"#!/bin/sh -e\n{postinst}\n")
            (tree / "DEBIAN/postinst").chmod(0o755)
        run("dpkg-deb", "--root-owner-group", "--build", tree, self.place / f"{name}_1.0_all.deb")

    def cut(self, name: str) -> None:
        """Have a package end in the midst of its files, as if it had been made so."""
        file = self.place / f"{name}_1.0_all.deb"
        file.write_bytes(file.read_bytes()[: -file.stat().st_size // 4])

    def serve(self, spool: Path, base: BaseImage, url: str = "") -> None:
        """Have a spool take the packages of a base image from here, by `url` if there is one, and from nowhere else."""
        with (self.place / "Packages").open("w") as index:
            for file in sorted(self.place.glob("*.deb")):
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                index.write(run("dpkg-deb", "--field", file))
                index.write(f"Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n\n")
        archive = Archive(spool / "layers" / ARCHIVES, base)
        archive.prepare()
        (archive.place / "base/etc/apt/sources.list").write_text(
            f"deb [trusted=yes] {url or f'copy:{self.place}'} ./\n"
        )
