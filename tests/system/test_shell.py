"""A machine to look around in: who is let in, what is kept, and that nothing is left when it ends, however it ends."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
import pytest

from construir_ftp.config import Config, SpoolSection
from construir_ftp.errors import RefusedError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.machine.terminal import END_KEY
from construir_ftp.pack import pack
from construir_ftp.runner import shell
from tests.support import belongings
from tests.support import images as jobs
from tests.support.appliance import construir
from tests.support.places import JOBS

BASE = "bookworm-amd64"
LOGIN = "root\nvagrant\n"
WAIT_S = 90


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, light: str) -> Path:
    """What `construir run` left of a job that failed."""
    place = tmp_path_factory.mktemp("shell") / "result"
    assert construir("run", light, JOBS / "fails", "-o", place).returncode == 3
    return place


def visit(*arguments: str | Path, script: str = LOGIN) -> "subprocess.CompletedProcess[str]":
    return construir(*arguments, timeout_s=300, input=script)


def with_spool(place: Path) -> Config:
    return Config(spool=SpoolSection(path=str(place)))


@contextmanager
def prepared(job: Path, spool: Path) -> Iterator[shell.Visit]:
    ours, theirs = socket.socketpair()
    with ours, theirs, shell.prepared(shell.find(str(job), with_spool(spool)), with_spool(spool), ours) as machine:
        yield machine


def words(said: str) -> list[str]:
    """The lines of a console, without their ends."""
    return said.replace("\r", "").split("\n")


def test_run_opens_the_machine_of_a_job_that_failed_if_told_to(light: str, tmp_path: Path) -> None:
    job = jobs.job_directory(tmp_path / "job", b"#!/bin/sh\necho seen >left-behind; exit 3\n")
    said = visit("run", light, job, "-o", tmp_path / "result", "--shell-on-failure", script=f"{LOGIN}cat left-behind\n")
    assert said.returncode == 3, said.stderr
    assert "seen" in words(said.stdout)


# -- a script at the login -------------------------------------------------------------------------------------


def test_piped_commands_run_as_root_in_a_machine_without_a_network() -> None:
    said = visit(
        "image", "shell", BASE, script=f"{LOGIN}id -un; hostname\nls /sys/class/net\ntype poweroff\npoweroff\n"
    )
    assert said.returncode == 0, said.stderr
    lines = words(said.stdout)
    assert lines[lines.index("root") + 1] == "construir"
    assert "lo" in lines
    assert "eth0" not in said.stdout
    assert "logout" not in said.stdout  # poweroff ended it, and not the end of the script


def test_end_of_the_script_ends_the_machine_even_after_a_program_that_reads_it(
    light: str, light_base: BaseImage
) -> None:
    said = visit("image", "shell", light_base.name, light, script=f"{LOGIN}cat\nread by cat\n")
    assert said.returncode == 0, said.stderr
    assert "read by cat" in words(said.stdout)
    assert "logout" in said.stdout


@pytest.mark.parametrize("script", ["", "root\nwrong\n"])
def test_script_that_does_not_log_in_ends_the_machine_too(script: str, light: str, light_base: BaseImage) -> None:
    said = visit("image", "shell", light_base.name, light, script=script)
    assert said.returncode == 0, said.stderr
    assert "login: " in said.stdout
    assert ":~#" not in said.stdout


@pytest.fixture(scope="module")
def looked(result: Path, light: str) -> list[str]:
    """What is said to somebody who looks at that job, and then changes it."""
    asked = "pwd; echo $PATH; ls; mount | grep -c ' on /job '; ls /dev/pts /proc/self/fd; cat /etc/hostname"
    image = result / "fails.img.zst"
    before = image.read_bytes()
    said = visit("shell", light, result, script=f"{LOGIN}{asked}\nrm run.sh; touch new; sync; ls\n")
    assert image.read_bytes() == before
    return words(said.stdout)


def test_machine_is_set_up_as_for_a_job(looked: list[str]) -> None:
    at = looked.index("/job")
    assert looked[at + 1].split(":")[0] == "/job/bin"
    assert {"run.sh", "1", "ptmx", "0", "fails"} <= set(" ".join(looked[at:]).split())


# -- the copy, and what is kept ----------------------------------------------------------------------------------


def test_changes_are_made_to_a_copy_and_forgotten(looked: list[str]) -> None:
    assert ["lost+found", "new"] in [line.split() for line in looked]


def test_kept_image_is_packed_as_its_name_says_and_runs_again(result: Path, light: str, tmp_path: Path) -> None:
    mended = tmp_path / "mended.img.xz"
    script = f"{LOGIN}printf '#!/bin/sh\\necho mended\\n' >run.sh\n"
    said = visit("shell", light, result, "--keep", mended, script=script)
    assert said.returncode == 0
    assert f"kept in {mended}" in said.stderr
    assert "e2fsck" not in said.stderr
    assert mended.read_bytes().startswith(b"\xfd7zXZ\x00")
    again = construir("run", light, mended, "-o", tmp_path / "again")
    assert (again.returncode, again.stdout) == (0, "mended\n")


def test_image_is_never_kept_over_another_file(result: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    for target in (tmp_path / "there", tmp_path / "no" / "such" / "directory"):
        said = visit("shell", result, "--keep", target)
        assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1)
    assert (tmp_path / "there").read_text() == "precious"


@pytest.mark.parametrize("codec", jobs.CODECS)
def test_image_in_any_codec_is_copied_and_the_copy_has_no_name(codec: str, tmp_path: Path) -> None:
    packed = tmp_path / "greet.img"
    packed.write_bytes(jobs.pack(codec, jobs.image()))
    with prepared(packed, tmp_path / "spool") as machine:
        assert machine.disk is not None
        assert Path(f"/proc/self/fd/{machine.disk}").read_bytes() == jobs.image()
        assert os.fstat(machine.disk).st_nlink == 0
        assert (machine.errand.hostname, machine.errand.filesystem) == ("greet", "ext2")


def test_image_that_can_not_be_mounted_is_shown_all_the_same(light: str, tmp_path: Path) -> None:
    # The superblock is in order; where it says that the inodes are, is nothing.
    image = bytearray(jobs.image("ext4", 8 * jobs.MIB))
    image[4096 : 64 * 4096] = bytes(60 * 4096 + 3 * 4096)
    (tmp_path / "torn.img").write_bytes(image)
    # The second disk is vdb under QEMU, ubdb in a user-mode machine.
    said = visit("shell", light, tmp_path / "torn.img", script=f"{LOGIN}e2fsck -fy /dev/[uv]*db | tail -2; poweroff\n")
    assert "construir: the image can't be mounted as ext4" in said.stdout
    assert "FILE SYSTEM WAS MODIFIED" in said.stdout


# -- the machine that the job had --------------------------------------------------------------------------------

FIRST = "20261122T104102Z-7f3a-first"
CPUS = min(2, len(os.sched_getaffinity(0)))
ASKS = f"""
memory = "640MiB"
cpus = {CPUS}
[env]
WORDS = "a b=c 'd' $e"
TERM = "of the job"
[dependencies]
results = ["{FIRST}"]
layers = ["tool"]
"""
LOOK = 'echo "$WORDS:$PATH"; nproc; grep MemTotal /proc/meminfo; cat /usr/share/tool /deps/first/made; ls /deps'


class Needy(msgspec.Struct, frozen=True):
    """A spool in which there is what a job depends on, and the result of that job, which failed."""

    spool: Path
    result: Path


def written(place: Path, run_sh: str, asks: str = "") -> Path:
    """The directory of a job."""
    jobs.job_directory(place, f"#!/bin/sh\n{run_sh}\n".encode())
    (place / "construir.toml").write_text(asks)
    return place


def packed(place: Path, asks: str) -> Path:
    pack.pack(written(place, "true", asks), place.with_suffix(".img.zst"), 2**20)
    return place.with_suffix(".img.zst")


@pytest.fixture(scope="module")
def needy(tmp_path_factory: pytest.TempPathFactory, light: str) -> Needy:
    place = tmp_path_factory.mktemp("needy")
    spool = Spool.prepare(place / "spool")
    first = written(place / "first", "mkdir -p out/usr/share; echo 1.0 >out/usr/share/tool; echo zlib >made")
    option = f"--spool={spool.path}"
    construir("run", light, first, "-o", spool.state("done") / FIRST, option, check=True)
    construir("layer", "publish", FIRST, "tool", "--path=out", option, check=True)
    job = written(place / "second", "sh ./look >seen; exit 3", ASKS)
    (job / "look").write_text(LOOK)
    ran = construir("run", job, "-o", place / "result", option)
    assert ran.returncode == 3
    assert ran.stderr.startswith(f"construir: getting ready what it depends on: {FIRST}, tool\n")
    return Needy(spool.path, place / "result")


def test_failed_job_is_looked_at_in_the_machine_it_had(needy: Needy) -> None:
    asked = "sh ./look >now; cmp seen now && echo 'all the same'; cat seen; touch /deps/first/x; echo $TERM."
    said = visit("shell", needy.result, f"--spool={needy.spool}", script=f"{LOGIN}{asked}\n")
    assert re.search(f"construir: getting ready what it depends on: {FIRST}, tool@[0-9a-f]{{12}}\n", said.stderr)
    assert "a copy of second at /job, /deps/first;" in said.stderr
    lines = words(said.stdout)
    assert "all the same" in lines
    seen = lines[lines.index("all the same") + 1 :]
    assert seen[0].startswith("a b=c 'd' $e:/job/bin:")
    assert seen[1] == str(CPUS)
    assert 560_000 < int(seen[2].split()[1]) < 640 * 1024
    assert seen[3:6] == ["1.0", "zlib", "first"]
    assert "touch: cannot touch '/deps/first/x': Read-only file system" in seen
    assert "dumb." in seen  # the terminal is the visitor's


def test_result_without_its_construir_toml_is_opened_by_the_one_in_its_image(needy: Needy, tmp_path: Path) -> None:
    for name in ("result.json", "second.img.zst"):
        (tmp_path / name).write_bytes((needy.result / name).read_bytes())
    with prepared(tmp_path, needy.spool) as machine:
        assert machine.shape.memory_bytes == 640 * 2**20
        assert [name for name, _ in machine.errand.results] == ["first"]
        assert len(machine.read_only) == 3  # layer, variables, result
        assert machine.shape.read_only_disks >= 3


def test_job_that_never_ran_gets_what_it_asks_for(tmp_path: Path) -> None:
    job = packed(tmp_path / "job", 'memory = "700MiB"\ntimeout = "9h"\nspace = "20MiB"\n')
    with prepared(job, tmp_path / "spool") as machine:
        assert (machine.shape.memory_bytes, machine.shape.read_only_disks) == (700 * 2**20, 0)
        assert machine.disk is not None
        assert os.fstat(machine.disk).st_size > 20 * 2**20


@pytest.mark.parametrize(
    ("asks", "code", "reason"),
    [
        (f"[dependencies]\nresults = ['{FIRST}']", 1, f"job {FIRST} has no result, or not any more; --without-depend"),
        ("[dependencies]\nlayers = ['tool']", 1, "there is no layer tool any more; --without-depend"),
        ("[dependencies]\npackages = ['hello']", 1, "packages: none can be had here; put them into the image; --with"),
        ("base = 'woody-i386'", 1, "run: construir image build woody-i386; or name another with --base"),
        ("memory = '4TiB'", 65, "construir.toml: memory: at most"),
        ("tiemout = '1h'", 65, "construir.toml: tiemout: no such key"),
    ],
)
def test_what_can_not_be_had_any_more_is_named_in_one_line(asks: str, code: int, reason: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[spool]\npath = "{tmp_path / "spool"}"\n[layers]\npackages = false\n')
    job = tmp_path / "job.img"  # not by pack, which refuses a key that no server knows
    jobs.run("mke2fs", "-q", "-t", "ext2", "-d", written(tmp_path / "job", "true", asks), job, "4M")
    said = visit("shell", job, f"--config={settings}")
    assert (said.returncode, said.stdout) == (code, "")
    lines = [line for line in said.stderr.splitlines() if "getting ready" not in line]
    assert len(lines) == 1
    assert reason in lines[0]


def test_machine_opens_without_what_is_gone_where_that_is_wished(
    light: str, light_base: BaseImage, tmp_path: Path
) -> None:
    asks = f"base = 'woody-i386'\n[env]\nWORD = 'kept'\n[dependencies]\nresults = ['{FIRST}']\nlayers = ['tool']\n"
    options = ("--without-dependencies", f"--base={light_base.name}", f"--spool={tmp_path / 'spool'}", light)
    said = visit("shell", packed(tmp_path / "job", asks), *options, script=f"{LOGIN}ls /deps/*; echo $WORD\n")
    assert said.returncode == 0, said.stderr
    lines = words(said.stdout)
    assert "kept" in lines
    assert "ls: cannot access '/deps/*': No such file or directory" in lines


# -- what is meant -------------------------------------------------------------------------------------------


def test_result_is_found_by_its_directory_and_by_its_id(result: Path, light_base: BaseImage, tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "20261122T104102Z-7f3a-fails").symlink_to(result)
    settings = with_spool(tmp_path)
    by_id = shell.find("20261122T104102Z-7f3a-fails", settings)
    assert by_id.image.samefile(shell.find(str(result), settings).image)
    assert by_id.wanted.base == light_base.name
    assert shell.find(str(by_id.image), settings).image == by_id.image


def described(place: Path, text: str) -> Path:
    place.mkdir()
    (place / "result.json").write_text(text)
    return place


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"status": "lost", "image": null}', "its job was lost"),
        ('{"status": "failed", "image": "gone.img"}', "lacks the image that its result.json names, 'gone.img'"),
        ('{"status": "failed", "image": "../../secret"}', "lacks the image that its result.json names, 'secret'"),
        ('{"status": "failed", "image": "\\u001b[2J"}', r"names, '\x1b[2J'"),
        ('{"status": "\\u001b[2J", "image": null}', "result.json can't be read"),
        ("[" * 100_000, "result.json can't be read"),
        ("\0\ufffd", "result.json can't be read"),
    ],
)
def test_result_without_an_image_is_refused_in_one_harmless_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    said = visit("shell", described(tmp_path / "result", text))
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1)
    assert reason in said.stderr
    assert "\x1b" not in said.stderr


@pytest.mark.parametrize("what", ["nothing", "../done", ".", "", "fifo"])
def test_what_is_no_job_and_no_result_is_refused(what: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    said = construir("shell", what, f"--spool={tmp_path}", cwd=tmp_path, input="")
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)


def test_garbage_is_refused_as_by_the_gate(tmp_path: Path) -> None:
    for name, data in {"noise": jobs.noise(jobs.MIB), "magic": jobs.only_magic(), "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RefusedError):
            shell.find(str(tmp_path / name), Config())
    cut = jobs.pack("zstd", jobs.image())[:-7]
    (tmp_path / "cut").write_bytes(cut)
    said = visit("shell", tmp_path / "cut")
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (65, "", 1)


def test_missing_qemu_exits_with_69(tmp_path: Path) -> None:
    settings = tmp_path / "construir.toml"
    settings.write_text('[machine]\naccelerator = "tcg"\nqemu = "qemu-system-nothing"\n')
    said = visit("image", "shell", BASE, f"--config={settings}")
    assert said.returncode == 69
    assert "qemu-system-nothing: not installed" in said.stderr


# -- a person at a terminal ----------------------------------------------------------------------------------


class Sitter:
    """Somebody at a terminal of 33 rows and 101 columns, who reads before typing."""

    def __init__(self, *arguments: str | Path) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        argv = [sys.executable, "-m", "construir_ftp", *map(str, arguments)]
        self.process = subprocess.Popen(
            argv,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read(self, until: bytes) -> bytes:
        """What has been shown since the last time, to the end of the first `until`."""
        deadline = time.monotonic() + WAIT_S
        while until not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.master, 65536)
        shown, found, self.seen = self.seen.partition(until)
        return shown + found

    def log_in(self) -> None:
        self.read(b"login: ")
        self.type(b"root\r")
        self.read(b"Password: ")
        self.type(b"vagrant\r")
        self.read(b"# ")

    def run(self, command: bytes) -> bytes:
        """What a command printed."""
        self.begin(command)
        return self.read(b"# ")

    def begin(self, command: bytes) -> None:
        self.type(command + b"\r")
        self.read(b"\n")

    def leave(self) -> int:
        """Wait for the end; the terminal has to be as it was, and nothing of it may be left to read."""
        status = self.process.wait(WAIT_S)
        assert termios.tcgetattr(self.slave) == self.before
        os.set_blocking(self.slave, False)
        with pytest.raises(BlockingIOError):
            os.read(self.slave, 1)
        return status


@contextmanager
def sitting(*arguments: str | Path) -> Iterator[Sitter]:
    sitter = Sitter(*arguments)
    try:
        yield sitter
    finally:
        if sitter.process.poll() is None:
            sitter.process.kill()
            sitter.process.wait()
        os.close(sitter.master)
        os.close(sitter.slave)


def test_person_sees_the_terminals_size_and_colours_and_switches_off_and_nothing_commands_the_terminal() -> None:
    with sitting("image", "shell", BASE) as person:
        person.read(b"; Ctrl-] ends it")
        person.log_in()
        assert b"33 101\r\nxterm-256color\r\n" in person.run(b"stty size; echo $TERM")
        # Not a shell: until it has started what it waits for, it takes a Ctrl-C for that.
        person.type(b"perl -e '$| = 1; print qq(up\\n); sleep 1000'\r")
        person.read(b"up\r\n")
        person.type(b"\x03")  # Ctrl-C is for the machine
        person.read(b"# ")
        said = person.run(rb"printf 'A\033]52;c;cm0gLXJm\aB\033P$qm\033\\C\033]0;title\033\\D\033[31mE\033[m\n'")
        assert b"ABCD\x1b[31mE\x1b[m\r\n" in said
        person.type(b"printf '\\033[?1049h\\033[?1000h'; poweroff\r")
        assert person.leave() == 0
        assert person.read(b"\x1b[!p").count(b"\x1b[?1047l") == 1


def test_key_ends_the_machine_before_it_is_up() -> None:
    with sitting("image", "shell", BASE) as person:
        person.read(b"ends it")
        while termios.tcgetattr(person.slave) == person.before:
            time.sleep(0.01)
        person.type(END_KEY)
        assert person.leave() == 0


def test_key_ends_the_machine_at_once_whatever_it_does_and_what_is_kept_comes_with_a_warning(
    result: Path, tmp_path: Path
) -> None:
    with sitting("shell", result, f"--keep={tmp_path / 'torn.img'}") as person:
        person.log_in()
        person.run(b"touch written; sync")
        person.begin(b"sleep 1000")
        person.type(END_KEY + b"rm -rf precious\r")
        person.read(b"may need e2fsck")
        assert person.leave() == 0
    assert b"written" in (tmp_path / "torn.img").read_bytes()


# -- ends ----------------------------------------------------------------------------------------------------


def descendants(pid: int) -> list[int]:
    """All below a process, by number."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


def copies(pid: int) -> list[str]:
    """What a process has open of its own in /var/tmp."""
    return [target for target in belongings.descriptors(pid).elements() if target.startswith("/var/tmp/construir-")]


def wait_for_death(pids: list[int]) -> None:
    deadline = time.monotonic() + WAIT_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# To end a machine in good order is the same thing for each kind; what ends one whose owner was killed is not.
@pytest.mark.parametrize(("how", "status", "is_light"), [(signal.SIGKILL, -9, False), (signal.SIGTERM, 1, True)])
def test_command_that_is_killed_leaves_no_machine_and_no_copy(
    how: signal.Signals, status: int, is_light: bool, result: Path, light: str
) -> None:
    with sitting("shell", result, *([light] if is_light else [])) as person:
        person.log_in()
        pid = person.process.pid
        machine = descendants(pid)
        programs = ("qemu", "linux") if is_light else ("qemu",)
        assert any(Path(f"/proc/{below}/comm").read_text().startswith(programs) for below in machine)
        assert [re.sub(r"scratch-\w+", "scratch", name) for name in copies(pid)] == [
            "/var/tmp/construir-scratch/disk.img (deleted)",
            "/var/tmp/construir-scratch/exports.sqfs (deleted)",
        ]
        person.process.send_signal(how)
        assert person.process.wait(WAIT_S) == status
        wait_for_death(machine)


def test_reader_that_stops_reading_can_not_keep_the_machine_from_being_stopped(
    light: str, light_base: BaseImage
) -> None:
    argv = [sys.executable, "-m", "construir_ftp", "image", "shell", light_base.name, light]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdin is not None
        command.stdin.write(LOGIN.encode() + b"cat /dev/zero | tr '\\0' x\n")
        command.stdin.flush()
        assert command.stdout is not None
        wait_until_full(command.stdout)
        command.terminate()
        assert command.wait(WAIT_S) == 1


def wait_until_full(pipe: IO[bytes]) -> None:
    """Until more than a login has come, and nothing more goes in: of how few bytes that is depends on how they came."""
    deadline, before, since = time.monotonic() + WAIT_S, 0, time.monotonic()
    while before < 8192 or time.monotonic() - since < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        if (now := unread(pipe)) != before:
            before, since = now, time.monotonic()


def unread(pipe: IO[bytes]) -> int:
    """Bytes that wait in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])
