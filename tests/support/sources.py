"""Debian source packages, made and signed by Debian's own tools, and sent by those of Debian's uploaders."""

import hashlib
import subprocess
from pathlib import Path

from construir_ftp import process
from tests.support.images import run

_RULES = """#!/usr/bin/make -f
clean:
build build-arch build-indep:
binary-arch:
binary binary-indep:
	mkdir -p debian/tree/DEBIAN debian/tree/usr/share/doc/{name}
	cp words debian/tree/usr/share/doc/{name}/
	dpkg-gencontrol -P$(CURDIR)/debian/tree
	dpkg-deb --root-owner-group --build debian/tree ..
"""
_DATE = "Sun, 22 Nov 2026 10:41:02 +0000"


def tree(
    place: Path,
    name: str = "words",
    version: str = "1.0",
    distribution: str = "bookworm",
    depends: str = "",
    **fields: str,
) -> Path:
    """An unpacked native source package in `place`; it builds one package with one file."""
    source = place / f"{name}-{version.rpartition(':')[2]}"
    (source / "debian/source").mkdir(parents=True)
    (source / "words").write_text("a few words\n")
    (source / "debian/source/format").write_text("3.0 (native)\n")
    (source / "debian/rules").write_text(_RULES.format(name=name))
    (source / "debian/rules").chmod(0o755)
    (source / "debian/changelog").write_text(
        f"{name} ({version}) {distribution}; urgency=medium\n\n  * Words.\n\n -- Alice <alice@example.org>  {_DATE}\n"
    )
    more = "".join(f"{field.replace('_', '-')}: {value}\n" for field, value in fields.items())
    (source / "debian/control").write_text(
        f"Source: {name}\nSection: misc\nPriority: optional\nMaintainer: Alice <alice@example.org>\n"
        f"Standards-Version: 4.6.2\n{f'Build-Depends: {depends}' + chr(10) if depends else ''}{more}\n"
        f"Package: {name}\nArchitecture: all\nDescription: a few words\n"
    )
    return source


def build(source: Path, *options: str) -> Path:
    """Its .changes, beside it with the other files: an upload of the source, unless `options` say otherwise."""
    argv = ["dpkg-buildpackage", "--no-sign", "-d", *(options or ("-S",))]
    env = process.environment(HOME=str(source.parent))
    subprocess.run(argv, cwd=source, env=env, check=True, capture_output=True)
    return max(source.parent.glob("*.changes"), key=lambda path: path.stat().st_mtime_ns)


class Signer:
    """Somebody with a key of their own, made now."""

    def __init__(self, place: Path, name: str) -> None:
        self._home = place / f"gnupg-{name}"
        self._home.mkdir(mode=0o700)
        self._gpg("--quick-generate-key", f"{name} <{name}@example.org>", "ed25519", "sign", "never")

    def public(self, *options: str) -> bytes:
        """Their public key."""
        argv: list[str | Path] = ["gpg", "--homedir", self._home, "--batch", "--export", *options]
        return subprocess.run(argv, check=True, capture_output=True).stdout

    def fingerprint(self) -> str:
        """Of their key, as gpg has it."""
        argv: list[str | Path] = ["gpg", "--homedir", self._home, "--batch", "--with-colons", "--list-keys"]
        told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        # The record that begins with an f, of gpg's doc/DETAILS.
        return next(line.split(":")[9] for line in told.splitlines() if line.startswith("f"))

    def sign(self, changes: Path) -> None:
        """Sign the .dsc, and then the .changes, whose sums of it are made right, as debsign does."""
        (dsc,) = changes.parent.glob("*.dsc")
        self._clear_sign(dsc)
        resum(changes, dsc)
        self._clear_sign(changes)

    def sign_list(self, changes: Path) -> None:
        """Sign the .changes alone."""
        self._clear_sign(changes)

    def close(self) -> None:
        """End the agent that gpg has started."""
        run("gpgconf", "--homedir", self._home, "--kill", "all")

    def _clear_sign(self, file: Path) -> None:
        signed = file.with_name(f"{file.name}.signed")
        self._gpg("--output", signed, "--clearsign", file)
        signed.replace(file)

    def _gpg(self, *arguments: str | Path) -> None:
        argv: list[str | Path] = ["gpg", "--homedir", self._home, "--batch", "--quiet", "--pinentry-mode", "loopback"]
        run(*argv, "--passphrase", "", *arguments)


def resum(changes: Path, file: Path) -> None:
    """Have a .changes say what a file is by now."""
    content = file.read_bytes()
    lines, section = [], ""
    for line in changes.read_text().splitlines():
        section = line.split(":")[0] if not line.startswith(" ") else section
        words = line.split()
        algorithm = {"Checksums-Sha1": "sha1", "Checksums-Sha256": "sha256", "Files": "md5"}.get(section)
        if algorithm and line.startswith(" ") and words[-1] == file.name:
            digest = hashlib.new(algorithm, content).hexdigest()
            line = " ".join(["", digest, str(len(content)), *words[2:]])
        lines.append(line)
    changes.write_text("\n".join(lines) + "\n")


def quilt(place: Path) -> Path:
    """An unpacked source package of upstream's files and Debian's."""
    native = tree(place, "quilted", "1.0")
    (native / "debian/source/format").write_text("3.0 (quilt)\n")
    changelog = native / "debian/changelog"
    changelog.write_text(changelog.read_text().replace("(1.0)", "(1.0-1)"))
    argv = ["tar", "--create", "--gzip", "--exclude=debian", f"--file={place}/quilted_1.0.orig.tar.gz"]
    run(*argv, f"--directory={place}", native.name)
    return native
