"""Promises of source_package: what a .dsc or a .changes says is told, and nothing that no tool of Debian's writes."""

import pytest

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import names, request, source_package
from construir_ftp.jobs.source_package import File

SUM = "0" * 64
DSC = f"""Format: 3.0 (quilt)
Source: hello
Binary: hello,
 hello-doc
Architecture: any all
Version: 1:2.10-3+b1
Build-Depends: debhelper-compat (= 13), libfoo-dev (>= 1.2) | libbar-dev,
 python3:any <!nocheck>
Build-Depends-Indep: doxygen [amd64 i386]
Build-Conflicts: old-hello
Checksums-Sha256:
 {SUM} 12 hello_2.10.orig.tar.gz
 {SUM} 34 hello_2.10-3+b1.debian.tar.xz
"""


def signed(text: str) -> str:
    return (
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}"
        "-----BEGIN PGP SIGNATURE-----\n\nabcd\n-----END PGP SIGNATURE-----\n"
    )


@pytest.mark.parametrize("text", [DSC, signed(DSC), DSC.replace("\n", "\r\n")], ids=["plain", "signed", "CRLF"])
def test_all_that_a_build_needs_is_told(text: str) -> None:
    said = source_package.parse(text.encode())
    assert (said.source, said.version, said.architecture) == ("hello", "1:2.10-3+b1", "any all")
    assert said.directory() == "/build/reproducible-path/hello-2.10"
    assert said.files == (File("hello_2.10.orig.tar.gz", 12, SUM), File("hello_2.10-3+b1.debian.tar.xz", 34, SUM))
    assert said.relations == (
        "debhelper-compat (= 13)",
        "libfoo-dev (>= 1.2) | libbar-dev",
        "python3:any <!nocheck>",
        "doxygen [amd64 i386]",
        "Conflicts: old-hello",
    )


def test_what_its_job_asks_for_is_read_back_the_same() -> None:
    wanted = source_package.wishes(source_package.parse(DSC.encode()), "bookworm-amd64", 2**30)
    assert request.read(request.render(wanted)) == wanted


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Source: hello", "Source: ../hello"),
        ("Source: hello", "Source: hello; reboot"),
        ("Source: hello", "Source: hello\nsource: other"),
        ("Source: hello", "\nSource: hello"),
        ("Source: hello", "Source: h\u00ebllo"),
        ("Source: hello", "Source: hello\n\n"),
        ("Version: 1:2.10-3+b1", "Version: 1/../2"),
        (" hello_2.10.orig.tar.gz", " ../hello_2.10.orig.tar.gz"),
        (" hello_2.10.orig.tar.gz", " .hello"),
        (" hello_2.10-3+b1.debian.tar.xz", " hello_2.10.orig.tar.gz"),
        (" 12 ", " -12 "),
        (" 12 ", " 1\u0662 "),
        (f"{SUM} 12", f"{SUM[1:]} 12"),
        ("Checksums-Sha256", "Checksums-Sha1"),
        ("doxygen", f"{'x' * 401}"),
        ("doxygen", ", ".join(f"x{number}" for number in range(500))),
        ("hello-doc", "x" * source_package.MOST_BYTES),
    ],
)
def test_what_no_tool_writes_is_refused(old: str, new: str) -> None:
    assert old in DSC
    with pytest.raises(RefusedError):
        source_package.parse(DSC.replace(old, new).encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    for content in (b"", b"\xff\xfe", b"\0" * 100, signed("").encode(), b"Source: hello\n"):
        with pytest.raises(RefusedError):
            source_package.parse(content)


@pytest.mark.parametrize(
    "name",
    [
        "hello_2.10-3.dsc",
        "hello_2.10.orig.tar.gz",
        "hello_2.10.orig.tar.gz.asc",
        "hello_2.10.orig-component.tar.xz",
        "hello_2.10-3.debian.tar.xz",
        "hello_2.10-3.diff.gz",
        "g++-x_1~rc1+dfsg.tar.bz2",
        "hello_2.10-3_source.buildinfo",
    ],
)
def test_file_of_a_source_starts_nothing(name: str) -> None:
    assert names.is_part(name)
    assert names.starts_nothing(name)


@pytest.mark.parametrize(
    "name", ["hello.img.zst", "hello_2.10.img.xz", "hello-2.10.tar.gz", "hello_2.10_source.changes", "Hello_1.tar.gz"]
)
def test_other_file_is_no_part_of_a_source(name: str) -> None:
    assert not names.is_part(name)


def test_package_is_refused_by_its_name() -> None:
    with pytest.raises(RefusedError, match="dpkg-buildpackage -S"):
        names.check_upload_name("hello_2.10-3_amd64.deb")
