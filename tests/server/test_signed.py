"""Signed results on a server, as a contributor's commands find them: changed, stripped, signed by another key."""

import html
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.config import TrustSection
from construir_ftp.jobs import sums
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.result import Signer
from construir_ftp.jobs.spool import Job
from construir_ftp.site.pages import Pages, Server
from construir_ftp.site.tree import Tree
from construir_ftp.trust import key_place, node_key, verify
from construir_ftp.trust.seal import Seal
from tests.support import images, signed, sites
from tests.support.appliance import construir
from tests.support.ftpclient import PASSWORD, Control, House

OTHER_ID = "20261129T120001Z-0000-other"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def seal(house: House) -> Seal:
    return signed.seal(house.spool.path)


@pytest.fixture
def done(house: House, seal: Seal) -> Path:
    return signed.result(house.spool, seal)


@pytest.fixture
def run(house: House, tmp_path: Path) -> Command:
    """The command, as somebody types it who has never been there before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CONSTRUIR_"))}
    env = {**kept, "HOME": str(tmp_path), "CONSTRUIR_SERVER": house.url("")}
    return lambda *words: construir(*words, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL)


def digest_of(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]


def test_the_public_keys_are_at_the_root_and_the_private_one_is_nowhere(house: House, seal: Seal) -> None:
    with house.connect() as control:
        control.log_in()
        assert {b"construir.pub", b"allowed_signers"} <= set(control.fetch("NLST /").split())
        place = key_place.directory(house.spool.path)
        for name in ("construir.pub", "allowed_signers"):
            assert control.fetch(f"RETR /{name}") == (place / name).read_bytes()
        for path in ("/construir.key", "/trust/construir.key", "/trust", "/done/../trust/construir.key"):
            for command in (f"SIZE {path}", f"CWD {path}", f"MDTM {path}"):
                assert control.ask(command).startswith("550")
            with control.passive():
                assert control.ask(f"RETR {path}").startswith("550")


def test_before_there_is_a_key_nothing_is_shown(anyone: Control) -> None:
    assert b"allowed_signers" not in anyone.fetch("NLST /")
    assert anyone.ask("SIZE /allowed_signers").startswith("550")


def test_what_somebody_without_the_key_changed_on_the_server_is_noticed(run: Command, done: Path) -> None:
    listed = sums.parse((done / "SHA256SUMS").read_bytes())
    (done / "output.log").write_bytes(b"hell0\n")
    changed = {**listed, "output.log": digest_of(done / "output.log")}
    (done / "SHA256SUMS").write_bytes(sums.render(changed))
    for words in (("fetch", signed.ID), ("fetch", signed.ID, "--only", "artifacts"), ("watch", signed.ID)):
        noticed = run(*words)
        assert noticed.returncode == 74
        assert "SHA256SUMS is not what SHA256:" in noticed.stderr


def test_a_signature_that_is_missing_is_noticed(run: Command, done: Path) -> None:
    assert run("fetch", signed.ID, "-o", "one").returncode == 0
    (done / "SHA256SUMS.sig").unlink()
    stripped = run("fetch", signed.ID, "-o", "two")
    assert stripped.returncode == 79
    assert "has no signature, though ftp://127.0.0.1" in stripped.stderr


def test_the_result_of_another_job_in_its_place_is_noticed(run: Command, house: House, done: Path, seal: Seal) -> None:
    other = signed.result(house.spool, seal, OTHER_ID)
    shutil.rmtree(done)
    other.rename(done)
    swapped = run("fetch", signed.ID)
    assert swapped.returncode == 74
    assert swapped.stderr.splitlines()[-1] == (
        f"construir: the result of {signed.ID} that has come is that of another job, {OTHER_ID}"
    )


def test_the_result_of_another_upload_than_was_sent_is_noticed(
    run: Command, house: House, seal: Seal, tmp_path: Path
) -> None:
    """The key is the server's, and so is the job's id; what it says was run is not what was sent from here."""
    (tmp_path / ".netrc").touch(mode=0o600)
    (tmp_path / ".netrc").write_text(f'machine 127.0.0.1 login alice password "{PASSWORD}"\n')
    sent = run("submit", images.job_directory(tmp_path / "greet"))
    assert sent.returncode == 0, sent.stderr
    job_id = sent.stdout.strip()
    house.spool.delete(Job(house.spool.state("queue") / job_id))
    signed.result(house.spool, seal, job_id)
    elsewhere = house.url(f"/done/{job_id}").replace("//", "//bob@")
    for words in (("watch", job_id), ("fetch", job_id, "-o", "it"), ("verify", job_id), ("verify", elsewhere)):
        noticed = run(*words)
        assert noticed.returncode == 74, (words, noticed.stderr)
        assert "has signed a result of another upload than was sent from here: its sha256 is " in noticed.stderr


def test_what_is_no_statement_beside_a_result_is_left_out_and_told(run: Command, done: Path, tmp_path: Path) -> None:
    (done / "equivalence.intoto.jsonl").write_bytes(b"nonsense\n")
    fetched = run("fetch", signed.ID, "-o", "it")
    assert fetched.returncode == 0, fetched.stderr
    assert "construir: what the server shows as others' statements is left out: " in fetched.stderr
    assert not (tmp_path / "it/equivalence.intoto.jsonl").exists()


def test_a_server_without_a_key_is_put_up_with_and_told(run: Command, house: House) -> None:
    signed.result(house.spool, None)
    fetched = run("fetch", signed.ID)
    assert (fetched.returncode, fetched.stdout) == (0, f"{signed.ID}\n")
    assert fetched.stderr == f"construir: not verified: {house.url('')} does not sign its results\n"
    refused = run("verify", signed.ID)
    assert refused.returncode == 66
    assert refused.stderr == "construir: there is no SHA256SUMS.sig, without which nothing is proved\n"


def test_a_key_that_has_changed_is_told_loudly_and_taken_when_told_so(
    run: Command, house: House, seal: Seal, done: Path
) -> None:
    assert run("fetch", signed.ID, "-o", "one").returncode == 0
    for half in (seal.key.path, seal.key.path.with_name("construir.pub")):
        half.unlink()
    following = signed.seal(house.spool.path)
    signed.result(house.spool, following, OTHER_ID)

    refused = run("fetch", OTHER_ID, "-o", "two")
    assert refused.returncode == 79
    assert f"THE KEY OF {house.url('')} HAS CHANGED, OR SOMEBODY ELSE HAS SIGNED" in refused.stderr
    (told,) = refused.stderr.splitlines()
    advice = told.rpartition("construir ")[2].split()
    assert advice == ["verify", OTHER_ID, "--server", house.url(""), "--accept", following.key.public.fingerprint]

    wrong = run(*advice[:-1], "SHA256:something")
    assert wrong.returncode == 79
    assert run(*advice).returncode == 0
    assert run("fetch", OTHER_ID, "-o", "two").returncode == 0
    assert run("fetch", signed.ID, "-o", "three").returncode == 0, "what the old key has signed is still good"
    assert run("verify", "three").returncode == 0


def test_a_result_that_was_changed_is_not_run_again(run: Command, done: Path, seal: Seal, tmp_path: Path) -> None:
    (done / "artifacts/greet.txt").unlink()
    again = ("rerun", done, "--spool", tmp_path / "mine")
    whole = run(*again)
    stranger, _, why = whole.stderr.splitlines()
    assert stranger == f"construir: {done} is signed by {seal.key.public.fingerprint}, which is not known here"
    assert "had no machine, so there is nothing to run again" in why
    (done / "greet.img.zst").write_bytes(b"another's")
    changed = run(*again)
    assert changed.returncode == 74
    assert changed.stderr == "construir: greet.img.zst is not what was signed\n"


def test_nothing_is_run_whose_result_cant_be_written(run: Command, tmp_path: Path) -> None:
    """/proc has room for nobody's files, root's included. There is no base image, which would be missed next."""
    images.job_directory(tmp_path / "greet")
    refused = run(
        "run", "greet", "-o", "/proc/mine/result", "--spool", tmp_path / "mine", "--images", tmp_path / "none"
    )
    assert refused.returncode == 1
    why = "nothing can be put into /proc: No such file or directory; name another place with -o"
    assert refused.stderr == f"construir: {why}\n"


def test_nothing_is_rebuilt_for_which_nothing_could_be_signed(
    run: Command, house: House, done: Path, seal: Seal, tmp_path: Path
) -> None:
    (tmp_path / "upload").write_bytes(b"an upload")
    (tmp_path / "signers").write_text(seal.key.public.line())
    signed.seal(tmp_path / "mine").key.path.chmod(0o644)
    words = ("--upload", "upload", "--key", "signers", "--spool", tmp_path / "mine")
    refused = run("rebuild", done, *words)
    assert refused.returncode == 78
    assert "others can read this key" in refused.stderr


def test_who_has_no_appliance_here_is_told_that_the_result_was_not_made_here(
    run: Command, done: Path, seal: Seal, tmp_path: Path
) -> None:
    (tmp_path / "signers").write_text(seal.key.public.line())
    refused = run("cosign", done, "--with", done, "--key", "signers", "--spool", tmp_path / "fresh")
    assert refused.returncode == 79
    assert refused.stderr == f"construir: {done} was not made here, so it is not for this key to sign\n"


def test_a_result_that_was_made_here_is_verified_by_the_key_of_this_computer(
    run: Command, house: House, done: Path, seal: Seal, tmp_path: Path
) -> None:
    mine = run("verify", done, "--spool", house.spool.path)
    assert mine.returncode == 0, mine.stderr
    told = f"proved: it is signed by {seal.key.public.fingerprint}, this computer's own key"
    assert mine.stdout.splitlines()[1] == told
    stranger = run("verify", done, "--spool", tmp_path / "elsewhere")
    assert stranger.returncode == 79
    signed.seal(tmp_path / "another")
    another = run("verify", done, "--spool", tmp_path / "another")
    assert another.returncode == 79
    assert another.stderr.endswith("; name a key that you have from its operator: --key FILE\n")
    (tmp_path / "others.pub").write_text(signed.seal(tmp_path / "others").key.public.line())
    only = run("verify", done, "--spool", house.spool.path, "--key", tmp_path / "others.pub")
    assert only.returncode == 79, "--key trusts no other"


def test_who_has_signed_a_source_is_signed_and_shown(run: Command, house: House, seal: Seal) -> None:
    """Or that nobody's signature was asked for; of an upload that is no source nothing is said."""
    signers = Signer("x.changes", "AB" * 20, "Alice <alice@example.org>"), Signer("x.dsc")
    done = signed.result(house.spool, seal, signers=signers)
    told = [
        f"x.changes: signed by Alice <alice@example.org>, key {'AB' * 20}",
        "x.dsc: nobody's signature was asked for, since no keyring is configured",
    ]
    shown = run("verify", done, "--spool", house.spool.path).stdout.splitlines()
    assert [line for line in shown if "a Debian source" in line] == [f"  it is a Debian source, {one}" for one in told]
    provenance = verify.check(done, [seal.key.public]).provenance.predicate
    assert provenance["buildDefinition"]["externalParameters"]["source_signers"] == [
        {"file": "x.changes", "fingerprint": "AB" * 20, "user_id": "Alice <alice@example.org>"},
        {"file": "x.dsc", "fingerprint": "", "user_id": ""},
    ]
    pages = Pages("Construir", "http://127.0.0.1/", Server(house.url(""), is_known=True))
    page = html.unescape(pages.result(read_result(Job(done)), done).decode())
    assert [f"<dt>Source</dt><dd>{one}</dd>" in page for one in told] == [True, True]
    plain = verify.check(signed.result(house.spool, seal, OTHER_ID), [seal.key.public]).provenance.predicate
    assert set(plain["buildDefinition"]["externalParameters"]) == {"job", "construir.toml"}


def test_a_part_that_was_fetched_is_verified_again_offline(run: Command, done: Path, tmp_path: Path) -> None:
    assert run("fetch", signed.ID, "--only", "artifacts", "-o", "part").returncode == 0
    brought = {path.relative_to(tmp_path / "part").as_posix() for path in (tmp_path / "part").rglob("*.*")}
    assert brought == {
        *("SHA256SUMS.sig", "provenance.intoto.jsonl", "result.json", "artifacts/greet.deb", "artifacts/greet.txt")
    }
    assert "is missing; fetch it again, or add --partial" in run("verify", "part").stderr
    offline = ("verify", "part", "--partial", "--server", "ftp://127.0.0.1:1")
    part = run(*offline)
    assert part.returncode == 0, part.stderr
    assert part.stdout.splitlines()[2].startswith("proved: 4 of its ")
    (tmp_path / "part/artifacts/greet.txt").write_bytes(b"hell0\n")
    assert run(*offline).returncode == 74


def test_programs_among_what_was_fetched_can_be_run_and_the_result_is_proved_still(
    run: Command, house: House, seal: Seal, tmp_path: Path
) -> None:
    signed.result(house.spool, seal, made={"greet": b"#!/bin/sh\necho hi\n", "notes.txt": b"notes\n"})
    for words in (("--only", "artifacts"), ()):
        # The second time nothing is left to be brought.
        assert run("fetch", signed.ID, *words, "-o", "r").returncode == 0
        assert subprocess.run([tmp_path / "r/artifacts/greet"], capture_output=True, check=True).stdout == b"hi\n"
        assert not os.access(tmp_path / "r/artifacts/notes.txt", os.X_OK)
    offline = run("verify", "r", "--server", "ftp://127.0.0.1:1")
    assert offline.returncode == 0, offline.stderr


def test_what_is_no_result_is_named(run: Command, tmp_path: Path) -> None:
    images.job_directory(tmp_path / "greet")
    job = run("verify", "greet")
    assert job.returncode == 66
    assert "the directory greet is a job, and no result: it has no SHA256SUMS; name one that" in job.stderr
    (tmp_path / "empty").mkdir()
    assert "the directory empty is no result: it has no SHA256SUMS" in run("verify", "empty").stderr


def test_without_a_server_a_directory_that_is_not_there_is_missing(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CONSTRUIR_"))}
    env = {**kept, "HOME": str(tmp_path)}
    nothing = construir("verify", "nofile", env=env, cwd=tmp_path)
    assert nothing.returncode == 66
    assert nothing.stderr == (
        "construir: there is no directory nofile here, and no server is named; set CONSTRUIR_SERVER\n"
    )
    (tmp_path / "one").mkdir()
    directories = construir("diff", "one", "one", env=env, cwd=tmp_path)
    assert directories.returncode == 66
    assert "one is no result: it has no result.json; other directories are compared by: diff -r" in directories.stderr


def test_a_result_of_a_failed_job_is_verified_too(run: Command, house: House, seal: Seal) -> None:
    signed.result(house.spool, seal, status="failed")
    verified = run("verify", house.url(f"/done/{signed.ID}"))
    assert verified.returncode == 0
    assert verified.stdout.startswith(f"{signed.ID}: failed")


def test_the_commands_on_the_page_of_a_result_do_what_they_say(house: House, seal: Seal, tmp_path: Path) -> None:
    image = images.pack("zstd", images.image("ext2", 2**20))
    done, site = signed.result(house.spool, seal, image=image), tmp_path / "site"
    Tree(site).prepare(house.spool.state("done"))
    with sites.served(site) as port:
        pages = Pages("Construir", f"http://127.0.0.1:{port}/", Server(house.url(""), is_known=True))
        page = pages.result(read_result(Job(done)), done).decode()
        commands = html.unescape(page.partition('aria-label="Commands">')[2].partition("</pre>")[0])
        typed = [line for line in commands.splitlines() if not line.startswith("construir shell ")]
        home = tmp_path / "home"
        home.mkdir()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = process.environment(HOME=str(home), PATH=path)
        argv = ["bash", "-euc", "\n".join(typed)]
        said = subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, (typed, said.stdout, said.stderr)
    assert f"construir shell {signed.ID}\n" in commands
    assert said.stdout.splitlines()[-1] == "result.json: OK"
    assert (home / signed.ID / "greet.img.zst").read_bytes() == image
    assert (home / f"{signed.ID}-files/run.sh").is_file()


def test_that_a_node_was_revoked_is_known_from_its_server_and_remembered(
    run: Command, house: House, seal: Seal, tmp_path: Path
) -> None:
    spool = house.spool
    far = Seal.of_node(spool.path, TrustSection(key=str(tmp_path / "far.key")), "far")
    node_key.admit(spool.path, "far", far.key.public, seal.key, seal.host)
    signed.result(spool, far, OTHER_ID)
    fetched = run("fetch", OTHER_ID, "-o", "one")
    assert fetched.returncode == 0
    assert f"key {seal.key.public.fingerprint}, by its node far" in fetched.stderr
    proved = run("verify", "one")
    assert proved.returncode == 0
    assert f"node far, certified by {seal.key.public.fingerprint}" in proved.stdout

    node_key.revoke(spool.path, "far")
    assert run("fetch", OTHER_ID, "-o", "two").returncode == 79
    (key_place.directory(spool.path) / "revoked_keys").unlink()
    for what in ("one", OTHER_ID):
        refused = run("verify", what)
        assert refused.returncode == 79
        assert "by node far" in refused.stderr
        assert "whose key was revoked" in refused.stderr
