"""What a job depends on: layers laid over the root, earlier results under /deps, none of it changed by the job."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from construir_ftp.machine.disks import MOST_READ_ONLY
from construir_ftp.machine.ending import Assignment, Ending
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from tests.support import machines
from tests.support.images import run
from tests.support.machines import LONG_S, assignment

LAYERS = 8
Start = Callable[[], AbstractContextManager[Machine]]


@pytest.fixture(scope="module")
def roomy(images: Path) -> Iterator[Template]:
    """A usual machine with places for all disks that one can have."""
    shape = machines.of_kind("", images, read_only_disks=MOST_READ_ONLY)
    with closing(Template.build(shape, LONG_S)) as template:
        yield template


@pytest.fixture(scope="module", params=machines.KINDS, ids=["usual", "user-mode"])
def start(request: pytest.FixtureRequest, images: Path) -> Start:
    """What gives a machine of each kind: a clone, where there are any."""
    if not request.param:
        template: Template = request.getfixturevalue("roomy")
        return template.clone
    shape = machines.of_kind(request.param, images, read_only_disks=MOST_READ_ONLY)
    return lambda: Machine.start(shape)


def job(place: Path, script: str) -> Path:
    place.mkdir()
    (place / "run.sh").write_text(f"#!/bin/sh -e\n{script}\n")
    (place / "run.sh").chmod(0o755)
    return place


def layer(place: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = place / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    run("mksquashfs", place / "tree", place / "layer.sqfs", "-quiet", "-all-root", "-no-progress")
    return place / "layer.sqfs"


def said(start: Start, task: Assignment) -> tuple[Ending, str]:
    with start() as machine:
        ending = machine.run(task)
    return ending, task.output.read_text()


def debugfs(disk: Path, command: str) -> str:
    argv: list[str | Path] = ["debugfs", "-R", command, disk]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_layers_cover_the_root_and_each_other_in_their_order(start: Start, tmp_path: Path) -> None:
    layers = [
        layer(
            tmp_path / str(number), {f"usr/share/l/{number}": "mine", "usr/share/l/all": f"{number}", "data/x": "new"}
        )
        for number in range(LAYERS)
    ]
    script = (
        "ls -x /usr/share/l /data; cat /usr/share/l/all; ls -d /usr/bin/env; echo >/usr/share/l/all; echo >/etc/new"
    )
    errand = Errand(hostname="layers", filesystem="ext2", layers=LAYERS)
    task = assignment(tmp_path / "run", job(tmp_path / "job", script), errand=errand, layers=tuple(layers))
    before = [path.read_bytes() for path in layers]
    ending, output = said(start, task)
    assert ending.claims.exit_code == 0, output
    assert output.split() == ["/data:", "x", "/usr/share/l:", *map(str, range(LAYERS)), "all", "7/usr/bin/env"]
    assert [path.read_bytes() for path in layers] == before


def test_earlier_results_are_there_to_read_and_not_to_write(start: Start, tmp_path: Path) -> None:
    left = assignment(tmp_path / "left", job(tmp_path / "earlier", "true")).disk
    script = """ls /deps/zlib /deps/other; ! touch /deps/zlib/x 2>/dev/null
        ! dd if=/dev/zero of=$(findmnt -no SOURCE /deps/zlib) count=1 2>/dev/null"""
    errand = Errand(hostname="deps", filesystem="ext2", results=(("zlib", "ext2"), ("other", "ext2")))
    task = assignment(tmp_path / "run", job(tmp_path / "job", script), errand=errand, results=(left, left))
    ending, output = said(start, task)
    assert ending.claims.exit_code == 0, output
    assert output.split().count("run.sh") == 2


def test_program_and_environment_are_those_of_the_errand(start: Start, tmp_path: Path) -> None:
    place = job(tmp_path / "job", "exit 1")
    (place / "other").write_text('#!/bin/sh\necho "$WORDS,$PATH,$0"\n')
    (place / "other").chmod(0o755)
    errand = Errand(hostname="env", filesystem="ext2", run="./other", env={"WORDS": "a b=c 'd'\n$e", "EMPTY": ""})
    ending, output = said(start, assignment(tmp_path / "run", place, errand=errand))
    assert (ending.claims.exit_code, output.startswith("a b=c 'd'\n$e,/job/bin:")) == (0, True), output
    assert output.endswith("./other\n")


def test_machine_that_waited_finds_its_layers_as_a_clone_does(roomy: Template, tmp_path: Path) -> None:
    path = layer(tmp_path / "layer", {"opt/tool/version": "1.0"})
    errand = Errand(hostname="warm", filesystem="ext2", layers=1)
    place = job(tmp_path / "job", "cat /opt/tool/version")
    task = assignment(tmp_path / "run", place, errand=errand, layers=(path,))
    with roomy.waiting() as machine:
        ending = machine.run(task)
    assert (ending.boot_path, ending.claims.exit_code, task.output.read_text()) == ("pooled", 0, "1.0")


def test_changes_to_the_root_are_kept_on_the_jobs_disk_where_asked_for(start: Start, tmp_path: Path) -> None:
    script = "echo kept >/etc/kept; rm /usr/bin/env; echo gone >/tmp/gone"
    errand = Errand(hostname="builder", filesystem="ext2", keeps_changes=True)
    task = assignment(tmp_path / "run", job(tmp_path / "job", script), errand=errand)
    ending, output = said(start, task)
    assert (ending.claims.exit_code, ending.claims.clean) == (0, True), output
    assert "character special" in debugfs(task.disk, "stat /changes/usr/bin/env")
    assert debugfs(task.disk, "cat /changes/etc/kept") == "kept\n"


def test_broken_layer_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"x" * 8192)
    errand = Errand(hostname="broken", filesystem="ext2", layers=1)
    task = assignment(tmp_path / "run", job(tmp_path / "job", "true"), errand=errand, layers=(tmp_path / "garbage",))
    ending, _ = said(start, task)
    assert ending.claims.error is not None
    assert ending.claims.error.startswith("layer 0 can't be mounted")
