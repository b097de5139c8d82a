"""source_upload, control_files: what dput sends of a Debian source becomes a job, or the reply says why not."""

import ftplib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from construir_ftp.diskimage import codec, extfs
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import request
from construir_ftp.jobs.names import starts_nothing
from construir_ftp.jobs.result import Signer
from construir_ftp.jobs.spool import Job
from construir_ftp.layers.apt import Archive
from construir_ftp.layers.store import ARCHIVES
from tests.support import sources
from tests.support.contributor import NAME, PASSWORD, Contributor
from tests.support.debarchive import DebArchive
from tests.support.ftpclient import House, serving, users_text

DPUT = "dput -f -u construir"
DEPENDS = "maker (>= 1), nothing-such | other-maker, elsewhere [arm64], checker <!nocheck>, booter <stage1>"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> DebArchive:
    made = DebArchive(tmp_path_factory.mktemp("archive") / "debs")
    for name in ("build-essential", "maker", "other-maker", "checker"):
        made.add(name)
    return made


@pytest.fixture
def house(tmp_path: Path, archive: DebArchive, base: BaseImage) -> Iterator[House]:
    with serving(tmp_path / "house") as house:
        archive.serve(house.spool.path, base)
        # At the door there are seconds for that only.
        Archive(house.spool.state("layers") / ARCHIVES, base).refresh()
        yield house


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .changes of a source, beside its files."""
    return sources.build(sources.tree(tmp_path_factory.mktemp("built")))


@pytest.fixture
def changes(built: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    place = tmp_path / "sent"
    place.mkdir()
    for path in built.parent.glob("words_*"):
        shutil.copy(path, place)
    return place / built.name


@pytest.fixture
def alice(house: House, tmp_path: Path) -> Contributor:
    return Contributor(house, tmp_path)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sources.Signer, sources.Signer]]:
    """Two people with keys."""
    # gpg's agent has a socket, whose path must be short.
    place = tmp_path_factory.mktemp("keys")
    both = sources.Signer(place, "alice"), sources.Signer(place, "mallory")
    yield both
    for signer in both:
        signer.close()


def dput(alice: Contributor, changes: Path) -> tuple[int, str]:
    return alice.run(f"{DPUT} {changes}")


def content(house: House, job: Job) -> dict[str, bytes]:
    """All files of the job's image."""
    record = job.record()
    image = house.spool.path / f"{job.id}.image"
    codec.unpack(record.codec, job.upload, image, record.image_bytes, 60)
    with image.open("rb") as file:
        unpacked = extfs.Image(file)
        root = unpacked.inode(extfs.ROOT)
        found = {name.decode(): unpacked.inode(number) for name, number in unpacked.entries(root)}
        return {name: b"".join(unpacked.stream(inode)) for name, inode in found.items() if name != "lost+found"}


def only_job(house: House) -> Job:
    (job,) = house.spool.jobs("queue")
    return job


def parts(changes: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in changes.parent.iterdir() if starts_nothing(path.name)}


# -- what becomes a job ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shown"), [(DPUT, "Successfully uploaded"), ("dupload --to construir", "words_1.0_source.changes 1.")]
)
def test_source_that_is_sent_becomes_a_job_with_its_build_dependencies(
    house: House, alice: Contributor, tmp_path: Path, line: str, shown: str
) -> None:
    changes = sources.build(sources.tree(tmp_path, version="2:1.0", depends=DEPENDS, Build_Conflicts="breaker"))
    status, said = alice.run(f"{line} {changes}")
    assert (status, shown in said) == (0, True), said
    job = only_job(house)
    assert sorted(path.name for path in job.path.iterdir()) == ["job.json", "upload"]
    assert (job.record().name, job.record().filename, job.record().contributor) == ("words", changes.name, NAME)
    assert job.record().installs
    dsc = next(name for name in parts(changes) if name.endswith(".dsc"))
    assert job.record().source_signers == (Signer(changes.name), Signer(dsc)), "no keyring is configured"
    inside = content(house, job)
    asks = request.read(inside.pop(request.FILE).decode())
    assert asks.dependencies.packages == ("build-essential",)
    assert [*asks.dependencies.build_depends, ""] == [*DEPENDS.split(", "), "Conflicts: breaker", ""]
    assert (asks.base, asks.outputs) == ("bookworm-amd64", ("out/*",))
    assert b"/build/reproducible-path/words-1.0 " in inside.pop("run.sh")
    assert inside == parts(changes)
    assert house.names("incoming") == []


def test_source_of_several_files_waits_for_its_changes(house: House, alice: Contributor, tmp_path: Path) -> None:
    changes = sources.build(sources.quilt(tmp_path), "-S", "-sa")
    sent = parts(changes)
    assert {Path(name).suffix for name in sent} == {".dsc", ".gz", ".xz", ".buildinfo"}
    with house.client(NAME, PASSWORD) as client:
        for name, text in sent.items():
            said = client.storbinary(f"STOR queue/{name}", io.BytesIO(text))
            assert said == f"226 Kept as {name}; its .changes makes a job of it."
        assert house.names("queue") == []
        assert set(client.nlst("queue")) == set(sent)
        said = client.storbinary(f"STOR queue/{changes.name}", io.BytesIO(changes.read_bytes()))
    assert said.startswith(f"226 Accepted as job {only_job(house).id}, number 1 in the queue")
    assert parts(changes).items() <= content(house, only_job(house)).items()


def test_two_contributors_send_files_of_one_name_and_each_has_their_own(
    house: House, alice: Contributor, tmp_path: Path
) -> None:
    house.users.path.write_text(users_text("alice", "bob", password=PASSWORD))
    lists = {}
    for name in ("alice", "bob"):
        source = sources.tree(tmp_path / name)
        (source / "words").write_text(f"{name}'s words\n")
        lists[name] = sources.build(source)
    assert {path.name for path in lists["alice"].parent.glob("*.*")} >= set(parts(lists["bob"]))
    with house.client("alice", PASSWORD) as alices, house.client("bob", PASSWORD) as bobs:
        both = {"alice": alices, "bob": bobs}
        for name, client in both.items():
            send(client, parts(lists[name]))
        for name, client in both.items():
            send(client, {lists[name].name: lists[name].read_bytes()})
    jobs = {job.record().contributor: job for job in house.spool.jobs("queue")}
    for name, changes in lists.items():
        assert parts(changes).items() <= content(house, jobs[name]).items()


def test_file_under_a_temporary_name_is_a_part_once_it_is_renamed(
    house: House, alice: Contributor, changes: Path
) -> None:
    with house.client(NAME, PASSWORD) as client:
        for name, text in {**parts(changes), changes.name: changes.read_bytes()}.items():
            client.storbinary(f"STOR queue/{name}.tmp", io.BytesIO(text))
            said = client.rename(f"queue/{name}.tmp", f"queue/{name}")
    assert said.startswith(f"250 Accepted as job {only_job(house).id}")
    assert parts(changes).items() <= content(house, only_job(house)).items()


# -- what is refused -------------------------------------------------------------------------------------------------


def send(client: ftplib.FTP, files: dict[str, bytes]) -> str:
    """The last reply."""
    said = ""
    for name, text in files.items():
        said = client.storbinary(f"STOR queue/{name}", io.BytesIO(text))
    return said


def refusal(house: House, changes: Path, without: str = "") -> str:
    """The reply to a .changes, after its files; of those the one that ends in `without` is left out."""
    files = {name: text for name, text in parts(changes).items() if not without or not name.endswith(without)}
    with house.client(NAME, PASSWORD) as client:
        send(client, files)
        with pytest.raises(ftplib.error_perm) as refused:
            send(client, {changes.name: changes.read_bytes()})
    assert house.names("queue") == []
    assert house.kept() == {name: len(text) for name, text in files.items()}, "what was sent can be used again"
    assert len(house.names("incoming")) == len(files)
    return str(refused.value)


def test_missing_file_is_named(house: House, alice: Contributor, changes: Path) -> None:
    assert refusal(house, changes, ".tar.xz") == (
        "550 Refused: words_1.0.tar.xz, which words_1.0_source.changes names, was not sent;"
        " send it, and then the .changes again"
    )


def test_upstream_file_that_the_changes_leave_out_is_named_with_the_cure(
    house: House, alice: Contributor, tmp_path: Path
) -> None:
    changes = sources.build(sources.quilt(tmp_path), "-S", "-sd")
    assert refusal(house, changes, ".orig.tar.gz") == (
        "550 Refused: quilted_1.0.orig.tar.gz, which quilted_1.0-1.dsc names, was not sent;"
        " build the upload with: dpkg-buildpackage -S -sa"
    )


def test_file_with_another_sum_is_named(house: House, alice: Contributor, changes: Path) -> None:
    tar = changes.with_name("words_1.0.tar.xz")
    tar.write_bytes(tar.read_bytes()[:-1] + b"!")
    assert refusal(house, changes) == (
        "550 Refused: words_1.0.tar.xz has another SHA-256 than words_1.0_source.changes says; send both again"
    )


def test_file_with_another_sum_than_the_dsc_says_is_named(house: House, alice: Contributor, changes: Path) -> None:
    tar = changes.with_name("words_1.0.tar.xz")
    tar.write_bytes(tar.read_bytes()[:-1] + b"!")
    sources.resum(changes, tar)
    assert refusal(house, changes) == (
        "550 Refused: words_1.0.tar.xz has another SHA-256 than words_1.0.dsc says; send both again"
    )


def test_distribution_without_a_base_image_is_refused(house: House, alice: Contributor, tmp_path: Path) -> None:
    changes = sources.build(sources.tree(tmp_path, distribution="experimental"))
    said = refusal(house, changes)
    start = "550 Refused: words_1.0_source.changes: distribution experimental: no base image here is of it; there are: "
    assert said.startswith(start)
    assert "bookworm" in said


@pytest.mark.parametrize("distribution", ["bookworm-security", "bookworm-proposed-updates"])
def test_pockets_of_a_suite_are_built_on_it(
    house: House, alice: Contributor, tmp_path: Path, distribution: str
) -> None:
    changes = sources.build(sources.tree(tmp_path, distribution=distribution))
    with house.client(NAME, PASSWORD) as client:
        said = send(client, {**parts(changes), changes.name: changes.read_bytes()})
    assert said.startswith("226 Accepted")


def test_dependency_that_cannot_be_resolved_is_named(house: House, alice: Contributor, tmp_path: Path) -> None:
    changes = sources.build(sources.tree(tmp_path, depends="maker (>= 99), checker"))
    status, said = dput(alice, changes)
    assert (status != 0, house.names("queue")) == (True, [])
    assert "550 Refused: its build dependencies: Depends: maker (>= 99)" in said


def test_binary_upload_is_refused_with_its_first_package(house: House, alice: Contributor, tmp_path: Path) -> None:
    changes = sources.build(sources.tree(tmp_path), "-b")
    status, said = dput(alice, changes)
    assert (status != 0, house.names("queue")) == (True, [])
    assert "550 Refused: packages are built here; send the source alone, of: dpkg-buildpackage -S" in said
    with house.client(NAME, PASSWORD) as client, pytest.raises(ftplib.error_perm) as refused:
        send(client, {changes.name: changes.read_bytes()})
    assert "not an upload of the source alone, but of: all; build the upload with" in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (" words_1.0.dsc", " ../../words_1.0.dsc", "it is not as Debian's tools write it"),
        ("Version: 1.0", "Version: 1.1", "words_1.0.dsc: it is of words 1.0, not of words 1.1"),
    ],
    ids=["a path", "another version"],
)
def test_changes_that_no_tool_has_written_are_refused(
    house: House, alice: Contributor, changes: Path, old: str, new: str, why: str
) -> None:
    changes.write_text(changes.read_text().replace(old, new))
    assert why in refusal(house, changes)


# -- signatures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyed(house: House, alice: Contributor, signers: tuple[sources.Signer, sources.Signer]) -> House:
    """Alice's key is known here."""
    house.users.set_keyring(NAME, signers[0].public("--armor"))
    return house


def test_source_signed_by_its_contributor_is_accepted(
    keyed: House, alice: Contributor, changes: Path, signers: tuple[sources.Signer, sources.Signer]
) -> None:
    signers[0].sign(changes)
    status, said = dput(alice, changes)
    assert status == 0, said
    assert parts(changes).items() <= content(keyed, only_job(keyed)).items()
    by = {"fingerprint": signers[0].fingerprint(), "user_id": "alice <alice@example.org>"}
    assert [msgspec.to_builtins(each) for each in only_job(keyed).record().source_signers] == [
        {"file": "words_1.0_source.changes", **by},
        {"file": "words_1.0.dsc", **by},
    ]


def test_source_without_a_signature_is_refused(keyed: House, alice: Contributor, changes: Path) -> None:
    assert refusal(keyed, changes) == (
        "550 Refused: words_1.0_source.changes: it is not signed, and is to be; sign it with debsign, and send it again"
    )


def test_source_signed_by_somebody_else_is_refused(
    keyed: House, alice: Contributor, changes: Path, signers: tuple[sources.Signer, sources.Signer]
) -> None:
    signers[1].sign(changes)
    assert re.fullmatch(
        r"550 Refused: words_1.0_source.changes: it is signed by the key [0-9A-F]{16}, which is not in your keyring"
        " here; have the operator add it",
        refusal(keyed, changes),
    )


def test_changes_that_were_changed_after_they_were_signed_are_refused(
    keyed: House, alice: Contributor, changes: Path, signers: tuple[sources.Signer, sources.Signer]
) -> None:
    signers[0].sign(changes)
    changes.write_text(changes.read_text().replace("Urgency: medium", "Urgency: high"))
    assert "words_1.0_source.changes: its signature is wrong: it was changed after it was signed" in refusal(
        keyed, changes
    )


def test_unsigned_dsc_in_signed_changes_is_refused(
    keyed: House, alice: Contributor, changes: Path, signers: tuple[sources.Signer, sources.Signer]
) -> None:
    signers[0].sign_list(changes)
    assert "550 Refused: words_1.0.dsc: it is not signed, and is to be" in refusal(keyed, changes)


def test_what_stands_outside_of_the_signature_counts_for_nothing(
    keyed: House, alice: Contributor, changes: Path, signers: tuple[sources.Signer, sources.Signer]
) -> None:
    other = changes.read_text().replace("Distribution: bookworm", "Distribution: experimental")
    signers[0].sign(changes)
    changes.write_text(f"{other}\n{changes.read_text()}\n{other}")
    with keyed.client(NAME, PASSWORD) as client:
        said = send(client, {**parts(changes), changes.name: changes.read_bytes()})
    assert said.startswith("226 Accepted")


def test_keyring_that_is_gone_lets_nothing_pass(keyed: House, alice: Contributor, changes: Path) -> None:
    (keyed.spool.path / "keyrings/alice.gpg").unlink()
    with keyed.client(NAME, PASSWORD) as client:
        send(client, parts(changes))
        with pytest.raises(ftplib.error_temp, match="451 The upload could not be taken in, by no fault of its own"):
            send(client, {changes.name: changes.read_bytes()})
    assert keyed.names("queue") == []
