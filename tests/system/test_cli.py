"""The command line: what it says, what it exits with, and that every option is explained."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from construir_ftp.cli.main import construir as group
from construir_ftp.cli.options import printable
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.pack import pack
from tests.support import ordinaryuser
from tests.support.appliance import construir
from tests.support.places import JOBS
from tests.system.test_jobs import ARTIFACTS

# What works on nothing that is configured: on a directory, or on these commands themselves.
UNCONFIGURED = {"init", "pack", "completion", "man"}


def commands(command: click.Command, name: str = "construir") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for sub in command.list_commands(context):
            below = command.get_command(context, sub)
            assert below is not None, f"{name} {sub}"
            yield from commands(below, f"{name} {sub}")


@pytest.mark.parametrize(
    ("name", "command"), list(commands(group)), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_command_and_option_is_explained(name: str, command: click.Command) -> None:
    assert command.help, name
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize(
    ("name", "command"), list(commands(group)), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_command_takes_the_places_it_works_on(name: str, command: click.Command) -> None:
    if not isinstance(command, click.Group) and name.removeprefix("construir ") not in UNCONFIGURED:
        options = {option for parameter in command.params for option in parameter.opts}
        speaks_to_a_server = "--ca-file" in options
        assert {"--config", "--spool", "--images"} <= options or speaks_to_a_server, name


# Whatever lists something, or says what it has found or deleted.
LISTINGS = {
    *("check", "status", "prune", "user list", "image list", "image diff", "image gc"),
    *("layer list", "layer show", "layer gc", "inspect", "init", "pack", "jobs", "diff"),
}


@pytest.mark.parametrize(
    ("name", "command"), list(commands(group)), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_listing_can_be_had_as_json(name: str, command: click.Command) -> None:
    if name.removeprefix("construir ") in LISTINGS:
        assert "--json" in {option for parameter in command.params for option in parameter.opts}


def test_listings_of_an_empty_appliance_are_json_in_whole_lines_and_without_colour(tmp_path: Path) -> None:
    spool, images = f"--spool={tmp_path / 'spool'}", f"--images={tmp_path / 'images'}"
    (tmp_path / "images").mkdir()
    construir("user", "add", "alice", "--password-stdin", spool, input="correct horse\n", check=True)
    for words in ("status", "prune", "user list", "image list", "image gc", "layer list", "layer gc"):
        said = construir(*words.split(), "--json", spool, images, check=True)
        assert msgspec.json.decode(said.stdout) in ([], ["alice"]) or words == "status", words
        assert said.stderr == ""


def test_listings_of_an_empty_appliance_say_that_there_is_nothing_and_how_there_would_be(tmp_path: Path) -> None:
    Spool.prepare(tmp_path)
    for word, told in (
        ("image", "to have one: construir image build\n"),
        ("layer", "asks for packages has one made\n"),
    ):
        said = construir(word, "list", f"--spool={tmp_path}", f"--images={tmp_path}", check=True)
        assert (said.stdout, said.stderr.count("\n")) == ("", 1)
        assert said.stderr.endswith(told)


def test_no_table_is_cut_or_coloured_where_there_is_no_terminal(images: Path) -> None:
    listed = construir("image", "list", env={**os.environ, "COLUMNS": "20", "FORCE_COLOR": ""}, check=True).stdout
    assert "bookworm-amd64 " in listed
    assert "\x1b" not in listed
    name, *_, digest = listed.splitlines()[1].split()
    assert (name.startswith("bookworm"), len(digest)) == (True, 16)


def test_image_verify_without_a_name_takes_the_one_that_jobs_get(light: str, light_base: BaseImage) -> None:
    said = construir("image", "verify", light, check=True)
    assert said.stdout.startswith(f"{light_base.name} is whole: sha256:")


def test_no_color_is_obeyed_on_a_terminal_and_a_bar_is_seen_there_only(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "construir_ftp", "pack", str(JOBS / "hello"), "-o"])
    seen = {}
    for colour in ("", "1"):
        env = {**os.environ, "NO_COLOR": colour, "TERM": "xterm"}
        argv = ["script", "-qec", f"{command} {tmp_path}/a{colour}.zst", "/dev/null"]
        seen[colour] = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "packing with zstd" in seen[""]
    assert "packing with zstd" in seen["1"]
    assert "\x1b[3" in seen[""]
    assert "\x1b[3" not in seen["1"]
    quiet = construir("pack", JOBS / "hello", "-o", tmp_path / "b.zst", check=True)
    assert (quiet.stderr, quiet.stdout.count("\n")) == ("", 1)


def test_image_build_tells_each_step_in_a_line_and_on_a_terminal_beside_a_bar(tmp_path: Path) -> None:
    # No archive is there, so that it ends in the first step.
    words = ("image", "build", "bookworm-amd64", "--mirror=http://127.0.0.1:9/", f"--images={tmp_path / 'images'}")
    said = construir(*words)
    assert said.returncode == 1
    assert said.stderr.startswith("construir: bookworm-amd64, step 1 of 4: installing Debian's packages\n")
    argv = ["script", "-qec", shlex.join([sys.executable, "-m", "construir_ftp", *words]), "/dev/null"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    seen = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False).stdout
    assert "bookworm-amd64: installing Debian's packages" in seen
    assert "0/4" in seen
    assert "step 1 of 4" not in seen


def test_places_can_be_named_in_the_environment(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    env = {**os.environ, "CONSTRUIR_SPOOL": str(spool)}
    construir("user", "add", "alice", "--password-stdin", env=env, input="correct horse\n", check=True)
    assert (spool / "users.toml").exists()
    assert construir("user", "list", env=env, check=True).stdout == "alice\n"


@pytest.mark.parametrize("verb", ["add", "password"])
def test_without_a_terminal_no_password_is_asked_for(verb: str, tmp_path: Path) -> None:
    option = f"--spool={tmp_path / 'spool'}"
    if is_there := verb == "password":
        construir("user", "add", "carol", "--password-stdin", option, input="correct horse\n", check=True)
    for stdin in ("</dev/null", "<&-", "</dev/zero"):
        argv = shlex.join([sys.executable, "-m", "construir_ftp", "user", verb, "carol", option])
        said = subprocess.run(
            ["setsid", "-w", "sh", "-c", f"{argv} {stdin}"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (said.returncode, said.stdout) == (2, "")
        assert said.stderr == "construir: there is no terminal to ask for a password on; use --password-stdin\n"
    assert (tmp_path / "spool").exists() is is_there


@pytest.mark.parametrize(
    ("verb", "name", "words", "code"),
    [
        ("add", "Alice", "can't be a contributor", 2),
        ("add", "bob", "already", 2),
        ("password", "eve", "no contributor", 66),
    ],
)
def test_a_wrong_name_is_told_before_a_password_is_asked_for(
    verb: str, name: str, words: str, code: int, tmp_path: Path
) -> None:
    spool = f"--spool={tmp_path / 'spool'}"
    construir("user", "add", "bob", "--password-stdin", spool, input="correct horse\n", check=True)
    # There is no terminal to ask on, which would be told first.
    said = construir("user", verb, name, spool)
    assert said.returncode == code
    assert words in said.stderr


def test_wrong_configuration_exits_with_78_naming_file_and_key(tmp_path: Path) -> None:
    config = tmp_path / "construir.toml"
    config.write_text('[machine]\ntimeout = "soon"\n')
    said = construir("status", f"--config={config}")
    assert said.returncode == 78
    assert said.stderr.startswith(f"construir: {config}: machine.timeout: expected a number with a unit")
    assert said.stderr.count("\n") == 1


def test_missing_qemu_exits_with_69(tmp_path: Path) -> None:
    config = tmp_path / "construir.toml"
    config.write_text('[machine]\naccelerator = "tcg"\nqemu = "qemu-system-nothing"\n')
    said = construir("run", JOBS / "hello", "-o", tmp_path / "result", f"--config={config}")
    assert said.returncode == 69
    assert "qemu-system-nothing: not installed" in said.stderr


def test_users_are_added_changed_listed_and_removed(tmp_path: Path) -> None:
    spool = f"--spool={tmp_path}"
    for name in ("bob", "alice"):
        construir("user", "add", name, "--password-stdin", spool, input="correct horse\n", check=True)
    assert construir("user", "list", spool).stdout == "alice\nbob\n"
    before = (tmp_path / "users.toml").read_text()
    construir("user", "password", "bob", "--password-stdin", spool, input="battery staple\n", check=True)
    assert (tmp_path / "users.toml").read_text() != before
    construir("user", "set", "alice", "--weight=3", spool, check=True)
    assert construir("user", "list", spool).stdout == "alice weight 3\nbob\n"
    construir("user", "remove", "alice", spool, check=True)
    assert construir("user", "list", spool).stdout == "bob\n"
    construir("user", "remove", "bob", spool, check=True)
    nobody = construir("user", "list", spool, check=True)
    told = "construir: nobody may send jobs yet; to let somebody: construir user add NAME\n"
    assert (nobody.stdout, nobody.stderr) == ("", told)
    construir("user", "add", "bob", "--password-stdin", spool, input="correct horse\n", check=True)
    again = construir("user", "add", "bob", "--password-stdin", spool, input="correct horse\n")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "correct" not in (tmp_path / "users.toml").read_text()


def test_run_exits_as_the_job_did_and_leaves_its_result(tmp_path: Path) -> None:
    said = construir("run", JOBS / "fails", "-o", tmp_path / "result")
    assert (said.returncode, said.stdout) == (3, "about to fail\n")
    result = msgspec.json.decode((tmp_path / "result" / "result.json").read_bytes())
    assert (result["status"], result["exit_code"], result["contributor"]) == ("failed", 3, "local")
    summed = {line.split("  ")[1] for line in (tmp_path / "result/SHA256SUMS").read_text().splitlines()}
    left = {path.name for path in (tmp_path / "result").iterdir()} - {"SHA256SUMS.sig"}
    assert left == {"SHA256SUMS", *summed}, "what a result has, and no more"


def test_run_leaves_the_same_artifacts_as_an_appliance(light: str, tmp_path: Path) -> None:
    said = construir("run", light, JOBS / "artifacts", "-o", tmp_path / "result")
    assert said.returncode == 3
    (told,) = [line for line in said.stderr.splitlines() if "not in artifacts/" in line]
    assert told.startswith("construir: not in artifacts/, though outputs of construir.toml asks for it: ")
    assert told.count("; ") == 5
    assert told.endswith("; and 2 more")
    assert {path.name: path.read_bytes() for path in (tmp_path / "result/artifacts").iterdir()} == ARTIFACTS
    programs = [path.name for path in (tmp_path / "result/artifacts").iterdir() if path.stat().st_mode & 0o111]
    assert programs == ["out_test.log"]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "result", check=True)


def test_run_takes_a_packed_job_too_and_an_unpacked_result_is_complete(light: str, tmp_path: Path) -> None:
    upload = tmp_path / "hello.img.xz"
    construir("pack", JOBS / "hello", "-o", upload, "--codec", "xz", "--space", "1MiB", check=True)
    assert construir("run", light, upload, "-o", tmp_path / "result").returncode == 0
    construir("unpack", tmp_path / "result" / "hello.img.xz", tmp_path / "left", check=True)
    assert {path.name for path in (tmp_path / "left").iterdir()} >= {"run.sh", "made-by-run.txt"}


def test_run_refuses_what_the_gate_refuses(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a job\n" * 1000)
    said = construir("run", tmp_path / "notes.txt", "-o", tmp_path / "result")
    assert said.returncode == 65
    assert "make one with: construir pack" in said.stderr
    assert not (tmp_path / "result").exists()


def test_run_never_writes_over_an_older_result(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    said = construir("run", JOBS / "hello", "-o", tmp_path / "result")
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere"], "nowhere is not there"),
        (["pack", "nowhere"], "nowhere"),
        (["unpack", "nowhere", "there"], "nowhere"),
        (["image", "verify", "nothing"], "run: construir image build nothing"),
        (["image", "verify", "--images=nowhere"], "where there is: none; run: construir image build"),
        (["image", "build", "../x"], "is no name for a base image"),
        (["status", "--spool=nowhere"], "no spool at"),
        (["prune", "--spool=nowhere"], "no spool at"),
        (["user", "remove", "nobody", "--spool=nowhere"], "nobody"),
    ],
)
def test_mistakes_get_one_line_that_says_what_to_do(arguments: list[str], words: str, tmp_path: Path) -> None:
    said = construir(*arguments, cwd=tmp_path)
    assert said.returncode in (1, 2, 66)
    assert words in said.stderr
    assert said.stderr.count("\n") == 1
    assert "Traceback" not in said.stderr


def test_status_and_prune_of_an_idle_spool(tmp_path: Path) -> None:
    construir("user", "add", "alice", "--password-stdin", f"--spool={tmp_path}", input="correct horse\n", check=True)
    status = msgspec.json.decode(construir("status", "--json", f"--spool={tmp_path}", check=True).stdout)
    assert (status["queue"], status["running"], status["done"]) == ([], [], 0)
    assert construir("prune", "--dry-run", f"--spool={tmp_path}", check=True).stdout == "nothing to delete\n"


def test_check_finds_a_working_machine_and_names_its_accelerator(tmp_path: Path) -> None:
    said = construir("check", "--json", f"--spool={tmp_path / 'spool'}")
    findings = {finding["subject"]: finding for finding in msgspec.json.decode(said.stdout)}
    assert said.returncode == 0, said.stdout
    assert findings["accelerator"]["text"].startswith(("KVM", "TCG"))
    assert all(bool(finding["remedy"]) == (finding["state"] != "ok") for finding in findings.values()), said.stdout


def test_check_says_what_to_do_about_each_problem(tmp_path: Path) -> None:
    config = tmp_path / "construir.toml"
    config.write_text('[machine]\nqemu = "qemu-system-nothing"\n[spool]\nmin_free = "1000TiB"\n')
    said = construir("check", f"--config={config}", f"--images={tmp_path}", f"--spool={tmp_path / 'spool'}")
    assert said.returncode == 1
    for remedy in ("apt install qemu-system-x86", "construir image build bookworm-amd64", "lower spool.min_free"):
        assert f"-> {remedy}" in said.stdout or remedy in said.stdout


def test_check_of_a_spool_where_nothing_can_be_kept_says_to_choose_another(tmp_path: Path) -> None:
    said = construir("check", "--json", f"--images={tmp_path}", "--spool=/proc/nothing")
    found = {one["subject"]: one for one in msgspec.json.decode(said.stdout)}
    assert found["permissions: spool"]["state"] == "problem"
    for subject in ("free space", "file system"):
        assert (found[subject]["state"], "another place with --spool" in found[subject]["remedy"]) == ("problem", True)


def test_status_says_whose_it_is_where_a_server_is_named(tmp_path: Path) -> None:
    construir("user", "add", "alice", "--password-stdin", f"--spool={tmp_path}", input="correct horse\n", check=True)
    server = {**os.environ, "CONSTRUIR_SERVER": "ftp://build.example.org"}
    said = construir("status", f"--spool={tmp_path}", env=server, check=True)
    assert said.stderr == (
        "construir: this is the appliance on this computer; of ftp://build.example.org tell:"
        " construir jobs, construir top\n"
    )
    assert construir("status", "--json", f"--spool={tmp_path}", env=server, check=True).stderr == ""


def test_check_tells_once_that_the_base_image_is_missing_or_damaged_and_how_it_is_built_there(
    base: BaseImage, tmp_path: Path
) -> None:
    words = ("check", "--json", f"--images={tmp_path}", f"--spool={tmp_path / 'spool'}")

    def found() -> list[dict[str, str]]:
        said = construir(*words)
        assert said.returncode == 1
        return [
            found for found in msgspec.json.decode(said.stdout) if found["subject"] in ("base image", "accelerator")
        ]

    missing, unknown = found()
    assert missing["text"] == f"base image '{base.name}' not found in {tmp_path}, where there is: none"
    assert missing["remedy"].startswith(f"construir image build {base.name} --images {tmp_path}")
    assert (unknown["text"], unknown["remedy"]) == ("not known without a base image", "build that, then check again")
    (tmp_path / base.name).mkdir()
    for part in base.path.iterdir():
        (tmp_path / base.name / part.name).symlink_to(part)
    (tmp_path / base.name / "initrd.img").unlink()
    (tmp_path / base.name / "initrd.img").write_bytes(b"")
    damaged, _ = found()
    assert damaged["text"] == f"base image '{base.name}': initrd.img is not what was built"
    assert damaged["remedy"] == f"construir image build --force {base.name}"


@pytest.mark.root("only root can be an ordinary user")
def test_check_of_a_user_who_reads_the_images_of_another_asks_for_no_right_to_write_them(
    images: Path, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "construir_ftp", "check", "--json", f"--images={images}"]
    said = ordinaryuser.run(argv, [Path(sys.prefix), Path(sys.base_prefix), images], tmp_path)
    findings = {finding["subject"]: finding for finding in msgspec.json.decode(said.stdout)}
    assert findings["base image"]["state"] == "ok", said.stdout
    told = f"{images} is another user's, who builds them; here they are read"
    assert (findings["permissions: images"]["state"], findings["permissions: images"]["text"]) == ("ok", told)


def test_control_and_bidirectional_characters_are_escaped_for_the_terminal() -> None:
    assert printable("a\x1b[2Jb\u202ec\td\n") == "a\\x1b[2Jb\\u202ec\td\n"


def test_what_a_job_printed_goes_as_it_is_into_a_pipe(light: str, tmp_path: Path) -> None:
    job = tmp_path / "escapes"
    job.mkdir()
    (job / "run.sh").write_text("#!/bin/sh\nprintf 'red: \\033[31m\\033]0;x\\007\\377\\r\\n'\n")
    (job / "run.sh").chmod(0o755)
    pack.pack(job, tmp_path / "escapes.img.zst", 2**20)
    argv: list[str | Path] = [sys.executable, "-m", "construir_ftp", "run"]
    argv += [tmp_path / "escapes.img.zst", "-o", tmp_path / "result", light]
    said = subprocess.run(argv, check=True, capture_output=True, timeout=120).stdout
    assert said == (tmp_path / "result" / "output.log").read_bytes() == b"red: \x1b[31m\x1b]0;x\x07\xff\r\n"
