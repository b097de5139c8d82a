"""How one version of a base image takes the place of another, and what is removed: never what somebody uses."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp import files
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import baseimage, gc, versions
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.result import BaseImageUsed
from construir_ftp.jobs.spool import Spool
from tests.support import records, sites
from tests.support.appliance import construir
from tests.support.baseimages import publish
from tests.support.places import PROJECT

OLD, NEW, NEWEST = {"a": "old"}, {"a": "new"}, {"a": "newest"}


def everything(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def test_new_version_is_found_and_the_old_one_stays_where_it_was(tmp_path: Path) -> None:
    old = publish(tmp_path, "worker", OLD)
    assert baseimage.find(tmp_path, "worker") == old
    new = publish(tmp_path, "worker", NEW)
    assert baseimage.find(tmp_path, "worker") == new
    assert old.path != new.path
    baseimage.verify(old)


def test_version_that_is_not_approved_leaves_no_trace(tmp_path: Path) -> None:
    def refuse(base: BaseImage) -> None:
        baseimage.verify(base)
        raise ConstruirError("no")

    old = publish(tmp_path, "worker", OLD)
    before = everything(tmp_path)
    with pytest.raises(ConstruirError, match="no"):
        publish(tmp_path, "worker", NEW, approve=refuse)
    assert baseimage.find(tmp_path, "worker") == old
    assert everything(tmp_path) == before


def test_the_same_bytes_are_the_same_version_and_need_no_approval(tmp_path: Path) -> None:
    def refuse(base: BaseImage) -> None:
        raise ConstruirError("no")

    first = publish(tmp_path, "worker", OLD)
    # mke2fs gives each file system a random identity.
    with versions.draft(tmp_path, "worker") as draft:
        for part in (*baseimage.PARTS, baseimage.MANIFEST):
            files.copy(first.path / part, draft / part)
        again = versions.publish(tmp_path, "worker", draft, refuse)
    assert again.path == first.path
    assert len(versions.every(tmp_path, "worker")) == 1


def test_damaged_version_is_replaced_by_the_same_one_whole(tmp_path: Path) -> None:
    first = publish(tmp_path, "worker", OLD)
    shutil.copytree(first.path, tmp_path / "copy")
    first.kernel.unlink()
    first.kernel.write_text("broken")
    with versions.draft(tmp_path, "worker") as draft:
        for part in (*baseimage.PARTS, baseimage.MANIFEST):
            files.copy(tmp_path / "copy" / part, draft / part)
        versions.publish(tmp_path, "worker", draft, lambda base: None)
    baseimage.verify(baseimage.find(tmp_path, "worker"))


def test_image_without_versions_is_found_and_gives_way_to_one_with(tmp_path: Path) -> None:
    built = publish(tmp_path / "elsewhere", "worker", OLD)
    shutil.copytree(built.path, tmp_path / "images" / "worker")
    assert baseimage.find(tmp_path / "images", "worker").manifest == built.manifest
    new = publish(tmp_path / "images", "worker", NEW)
    assert baseimage.find(tmp_path / "images", "worker") == new
    gc.collect(tmp_path / "images", {"worker"})
    assert [path.name for path in versions.store(tmp_path / "images", "worker").iterdir()] == [new.path.name]


CRASHING = """
import os, signal, sys
from pathlib import Path
from construir_ftp.image import versions
from tests.support.baseimages import publish
step, images = int(sys.argv[1]), Path(sys.argv[2])

def counted(call):
    def counting(*arguments, **options):
        global step
        if step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        step -= 1
        return call(*arguments, **options)
    return counting

for name in ("rename", "replace", "symlink_to", "chmod"):
    setattr(Path, name, counted(getattr(Path, name)))
publish(images, "worker", {"a": "new"})
"""


def test_killed_anywhere_leaves_the_old_version_or_the_new_one_live(tmp_path: Path) -> None:
    publish(tmp_path, "worker", OLD)
    ends = []
    for step in range(20):
        argv = [sys.executable, "-c", CRASHING, str(step), str(tmp_path)]
        ends.append(subprocess.run(argv, cwd=PROJECT, timeout=60, check=False).returncode)
        baseimage.verify(baseimage.find(tmp_path, "worker"))
        if ends[-1] == 0:
            break
    assert ends == [-signal.SIGKILL] * (len(ends) - 1) + [0]
    assert len(ends) > 5
    gc.collect(tmp_path, {"worker"})
    assert len(list(versions.store(tmp_path, "worker").iterdir())) == 1


def test_a_version_in_use_is_not_collected_until_it_no_longer_is(tmp_path: Path) -> None:
    old = publish(tmp_path, "worker", OLD)
    with baseimage.holding(old):
        publish(tmp_path, "worker", NEW)
        assert gc.collect(tmp_path, {"worker"}) == []
        baseimage.verify(old)
    assert [gone.path for gone in gc.collect(tmp_path, {"worker"})] == [old.path]
    assert not old.path.exists()
    with pytest.raises(ConstruirError, match="was removed"):
        baseimage.hold(old)


def test_a_child_that_has_the_descriptor_holds_the_version(tmp_path: Path) -> None:
    old = publish(tmp_path, "worker", OLD)
    publish(tmp_path, "worker", NEW)
    descriptor = baseimage.hold(old)
    with subprocess.Popen(["sleep", "60"], pass_fds=[descriptor]) as child:
        os.close(descriptor)
        assert gc.collect(tmp_path, {"worker"}) == []
        child.kill()
    assert len(gc.collect(tmp_path, {"worker"})) == 1


def test_the_version_before_the_live_one_is_kept_by_a_build_and_no_other(tmp_path: Path) -> None:
    oldest, old, live = (publish(tmp_path, "worker", files) for files in (OLD, NEW, NEWEST))
    gc.trim(tmp_path, "worker")
    assert {base.path for base in versions.every(tmp_path, "worker")} == {old.path, live.path}
    assert not oldest.path.exists()


def test_the_versions_that_the_newest_results_were_made_on_stay_and_no_more_of_them(tmp_path: Path) -> None:
    images, spool = tmp_path / "images", Spool.prepare(tmp_path / "spool")
    first, second, third, fourth, _live = (publish(images, "worker", {"a": content}) for content in "abcde")
    for number, base in enumerate((third, second, second, first)):
        used = BaseImageUsed("worker", base.manifest.digest())
        sites.put(spool, sites.result(f"2026112{number}T104102Z-7f3a-hello", base_image=used))
    (spool.state("done") / "20261129T104102Z-7f3a-damaged").mkdir()
    options = (f"--images={images}", f"--spool={spool.path}", f"--config={tmp_path / 'construir.toml'}")
    for most, gone in ((3, [fourth]), (2, [third]), (0, [first, second])):
        (tmp_path / "construir.toml").write_text(f"[images]\nkeep_for_results = {most}\n")
        said = construir("image", "gc", *options, check=True).stdout
        assert {line.split()[1] for line in said.splitlines()} == {f"worker@{base.path.name}:" for base in gone}


def test_a_build_keeps_the_versions_that_results_need(tmp_path: Path) -> None:
    oldest, older, before, live = (publish(tmp_path, "worker", {"a": content}) for content in "abcd")
    gc.trim(tmp_path, "worker", {oldest.manifest.digest()})
    assert {base.path for base in versions.every(tmp_path, "worker")} == {oldest.path, before.path, live.path}
    assert not older.path.exists()


def test_a_version_that_comes_back_is_not_live(tmp_path: Path) -> None:
    old, live = publish(tmp_path, "worker", OLD), publish(tmp_path, "worker", NEW)
    with versions.draft(tmp_path, "worker") as draft:
        for part in (*baseimage.PARTS, baseimage.MANIFEST):
            files.copy(old.path / part, draft / part)
        gc.collect(tmp_path, {"worker"})
        assert not old.path.exists()
        assert versions.keep(tmp_path, "worker", draft) == old
    baseimage.verify(old)
    assert baseimage.find(tmp_path, "worker") == live


def test_gc_removes_what_nothing_names_and_says_so_first(tmp_path: Path) -> None:
    publish(tmp_path, "bookworm-amd64", OLD)
    publish(tmp_path, "bookworm-amd64", NEW)
    publish(tmp_path, "unused", OLD)
    publish(tmp_path, "kept", OLD)
    config = tmp_path / "construir.toml"
    config.write_text(f'[images]\npath = "{tmp_path}"\nkeep = ["kept"]\n')
    before = everything(tmp_path)
    gc = ("image", "gc", "--names", f"--config={config}")
    dry = construir(*gc, "--dry-run", check=True).stdout.splitlines()
    assert everything(tmp_path) == before
    done = construir(*gc, check=True).stdout.splitlines()
    assert [line.removeprefix("would ").replace("remove ", "removed ", 1) for line in dry] == done
    assert len(done) == 2
    assert done[0].startswith("removed bookworm-amd64@")
    assert done[1].startswith("removed unused@")
    assert baseimage.names(tmp_path) == ["bookworm-amd64", "kept"]
    assert construir(*gc, check=True).stdout == "nothing to remove\n"


def test_gc_leaves_what_was_just_built_alone_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    """As somebody does who builds another image by hand, and then cleans up."""
    publish(tmp_path, "trixie-amd64", OLD)
    publish(tmp_path, "trixie-amd64", NEW)
    said = construir("image", "gc", f"--images={tmp_path}", check=True)
    assert said.stdout.startswith("removed trixie-amd64@")
    assert said.stdout.count("\n") == 1
    assert said.stderr == (
        "construir: trixie-amd64 stays, though no configuration, job or layer names it; --names removes it\n"
    )
    assert baseimage.names(tmp_path) == ["trixie-amd64"]
    assert construir("image", "gc", f"--images={tmp_path}", check=True).stdout == "nothing to remove\n"


def test_gc_keeps_what_a_waiting_job_names(tmp_path: Path) -> None:
    publish(tmp_path / "images", "asked-for", OLD)
    spool = Spool.prepare(tmp_path / "spool")
    waiting = records.send(spool, construir_toml='base = "asked-for"')
    places = (f"--images={tmp_path / 'images'}", f"--spool={spool.path}")
    assert construir("image", "gc", "--names", *places, check=True).stdout == "nothing to remove\n"
    spool.delete(waiting)
    assert construir("image", "gc", "--names", *places, check=True).stdout.startswith("removed asked-for@")


def test_gc_leaves_a_build_alone_and_removes_the_rest_of_a_killed_one(tmp_path: Path) -> None:
    publish(tmp_path, "worker", OLD)
    with versions.draft(tmp_path, "worker") as draft:
        assert gc.collect(tmp_path, {"worker"}) == []
        assert draft.is_dir()
        shutil.copytree(draft, draft.with_name(f"{draft.name}x"))
        assert [gone.path.name for gone in gc.collect(tmp_path, {"worker"})] == [f"{draft.name}x"]


def test_remove_takes_a_name_and_all_its_versions_unless_one_is_in_use(tmp_path: Path) -> None:
    old = publish(tmp_path, "worker", OLD)
    publish(tmp_path, "worker", NEW)
    before = everything(tmp_path)
    with baseimage.holding(old), pytest.raises(ConstruirError, match="in use"):
        gc.remove(tmp_path, "worker")
    assert everything(tmp_path) == before
    construir("image", "remove", "worker", f"--images={tmp_path}", check=True)
    assert baseimage.names(tmp_path) == []
    assert not list(versions.store(tmp_path, "worker").iterdir())
    again = construir("image", "remove", "worker", f"--images={tmp_path}")
    told = f"construir: base image 'worker' not found in {tmp_path}, where there is: none\n"
    assert (again.returncode, again.stderr) == (66, told)


def test_unknown_name_is_refused_with_the_list_of_what_there_is(tmp_path: Path) -> None:
    publish(tmp_path, "worker", OLD)
    publish(tmp_path, "other", OLD)
    there = f"construir: base image 'nothing' not found in {tmp_path}, where there is: other, worker"
    for command, status, remedy in (
        ("verify", 1, f"; run: construir image build nothing --images {tmp_path}"),
        ("remove", 66, ""),
    ):
        said = construir("image", command, "nothing", f"--images={tmp_path}")
        assert said.returncode == status
        assert f"{there}{remedy}\n" in said.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a" * 101, "a\nb", "ä"])
def test_name_that_leads_elsewhere_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a base image"):
        baseimage.find(tmp_path, name)
    with pytest.raises(UsageError, match="is no name for a base image"), versions.draft(tmp_path, name):
        pass
    assert everything(tmp_path) == set()
