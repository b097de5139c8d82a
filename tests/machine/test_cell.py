"""The programs that belong in a jail do their work in it."""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.config import GateSection
from construir_ftp.errors import RefusedError
from construir_ftp.intake import live_check
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jail import cell, jail, tools
from construir_ftp.machine import vm
from construir_ftp.machine.shape import Shape
from tests.support import images, machines
from tests.support.places import JOBS
from tests.support.prison import MIB, check_walls, nothing_left, only_qemu, run, running


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


def judged(data: bytes, tmp_path: Path) -> Verdict:
    upload = tmp_path / "upload"
    upload.write_bytes(data)
    upload.chmod(0o600)
    with JudgePool(GateSection()) as judges:
        return live_check.check_file(upload, judges)


@pytest.mark.parametrize("codec", images.CODECS)
def test_the_jailed_judge_accepts_a_job(tmp_path: Path, codec: str) -> None:
    found = judged(images.pack(codec, images.image()), tmp_path)
    assert (found.codec, found.filesystem) == (codec, "ext2")


def test_the_jailed_judge_refuses_what_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cut short"):
        judged(images.pack("zstd", images.image())[:-100], tmp_path)
    with pytest.raises(RefusedError, match="tar archive"):
        judged(images.tar(), tmp_path)


@pytest.mark.parametrize(
    ("codec", "tool"), [("gzip", "gzip"), ("bzip2", "bzip2"), ("xz", "xz"), ("zstd", "zstd"), ("lz4", "lz4")]
)
def test_a_jailed_tool_unpacks_and_packs(tmp_path: Path, codec: str, tool: str) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(images.pack(codec, images.image()))
    kind = cell.reader(memory_bytes=2**30, cpu_s=60)
    threads = ["-T0"] if codec in ("xz", "zstd") else []
    for argv, want in (([tool, "-dc"], images.image()), ([tool, "-c", *threads], None)):
        with packed.open("rb") as file:
            ended = tools.run(kind, argv, 60, stdin=file, most_bytes=64 * MIB)
        assert (ended.status, ended.words) == (0, "")
        assert want in (None, ended.output)


@pytest.mark.parametrize(
    "kind",
    [
        cell.reader(memory_bytes=2**29, cpu_s=60),
        cell.judge_server(judges=4, memory_bytes=2**29, readable=()),
    ],
    ids=["decompressors and e2fsck", "judges"],
)
def test_what_reads_hostile_bytes_is_bounded_and_sees_nothing_by_the_kernels_word(kind: cell.Cell) -> None:
    with jail.host().hold(kind, ["sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE) as prisoner:
        proc = Path(f"/proc/{running(prisoner)}")
        for name in ("net", "pid", "mnt", "ipc"):
            assert (proc / "ns" / name).readlink() != Path("/proc/self/ns", name).readlink()
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", 0)
        limits = kind.limits
        bounds = {
            resource.RLIMIT_AS: limits.address_bytes,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_NOFILE: limits.open_files,
            resource.RLIMIT_CPU: limits.cpu_s or resource.RLIM_INFINITY,  # judges bound themselves, see test_court
            resource.RLIMIT_CORE: 0,
        }
        for what, most in bounds.items():
            assert resource.prlimit(int(proc.name), what) == (most, most)
        if prisoner.group:
            assert prisoner.group.in_force("memory")
        shown = {path.name for path in (proc / "root").iterdir()}
        assert shown <= {"usr", "etc", "dev", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}


def test_a_jailed_e2fsck_mends_an_image_and_touches_nothing_else(tmp_path: Path) -> None:
    disk, other = tmp_path / "disk.img", tmp_path / "other.img"
    hurt = images.with_fields(images.image(), {1024 + 58: 2}, "<H")  # s_state: errors
    for path in (disk, other):
        path.write_bytes(hurt)
    mender = cell.reader(memory_bytes=2**29, cpu_s=60, writable=disk)
    assert tools.run(mender, ["e2fsck", "-f", "-y", disk], 60).status in (0, 1)
    assert disk.read_bytes() != hurt
    assert other.read_bytes() == hurt
    status, _ = run(jail.host(), cell.reader(memory_bytes=2**29, cpu_s=60), ["e2fsck", "-f", "-y", other])
    assert status == 8


def test_a_whole_machine_runs_in_its_cell(shape: Shape, tmp_path: Path) -> None:
    task = machines.assignment(tmp_path, JOBS / "hello")
    with vm.Machine.start(shape) as machine:
        machine.wait_until_ready(machines.LONG_S)
        check_walls(only_qemu())
        ending = machine.run(task)
    assert (ending.claims.exit_code, ending.claims.clean, ending.status) == (0, True, 0), ending
    assert ending.usage.cpu_seconds > 0.1
    assert ending.usage.peak_memory_bytes > 32 * MIB
    assert task.output.read_bytes().startswith(b"hello from Linux")
    assert b"UTC" in task.disk.read_bytes()  # made-by-run.txt


def test_a_program_beside_the_system_is_seen_with_what_belongs_to_it(tmp_path: Path) -> None:
    assert cell.program("qemu-system-x86_64") == cell.program("/usr/bin/qemu-system-x86_64") == ()
    assert cell.program("/opt/qemu/bin/qemu-system-x86_64") == (Path("/opt/qemu"),)
    assert cell.program("/srv/odd/qemu") == (Path("/srv/odd/qemu"),)
    place = tmp_path / "installed" / "bin"
    place.mkdir(parents=True)
    program = place / "qemu"
    program.write_text(f"#!/bin/sh\nls {tmp_path}\n")
    program.chmod(0o755)
    kind = cell.machine(
        str(program), base=(), disk_bytes=MIB, memory_bytes=64 * MIB, cpus=1, changes_bytes=MIB, kvm=False
    )
    assert run(jail.host(), kind, [program]) == (0, "installed\n")
