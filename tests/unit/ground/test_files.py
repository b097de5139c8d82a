"""Promises of disk: what is said to be durable was synced, and no reader sees half a file."""

import hashlib
import io
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from construir_ftp import files

BLOCK = 64 * 1024


def test_write_durably_never_overwrites_and_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("there", "link"):
        with pytest.raises(FileExistsError):
            files.write_durably(tmp_path / name, b"new")
    assert (tmp_path / "there").read_bytes() == b"old"
    assert not (tmp_path / "elsewhere").exists()


def test_write_durably_gives_content_and_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.write_durably(tmp_path / "file", b"content", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"content"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_replace_durably_leaves_nothing_else_behind(tmp_path: Path) -> None:
    files.replace_durably(tmp_path / "file", b"one")
    files.replace_durably(tmp_path / "file", b"two")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"two")]


def test_replace_durably_that_fails_keeps_the_old_and_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace_durably(target, b"content")
    assert list(tmp_path.iterdir()) == [target]


def test_reader_of_a_replaced_file_sees_old_or_new_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([letter]) * 20_000 for letter in b"ab"}
    files.replace_durably(path, min(contents))
    done = threading.Event()
    seen = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        for content in contents:
            files.replace_durably(path, content)
    done.set()
    reader.join()
    assert seen
    assert seen <= contents


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.sampled_from([bytes(BLOCK), b"x" * BLOCK, bytes(BLOCK - 1) + b"x", bytes(100), b"end"])),
    more=st.sampled_from([b"", b"\0", b"more"]),
)
def test_sparse_copy_equals_its_source(tmp_path: Path, pieces: list[bytes], more: bytes) -> None:
    content = b"".join(pieces)
    path = tmp_path / "copy"
    path.unlink(missing_ok=True)
    files.write_sparse(io.BytesIO(content + more), path, len(content))
    assert path.read_bytes() == content


def test_sparse_copy_leaves_holes(tmp_path: Path) -> None:
    files.write_sparse(io.BytesIO(bytes(64 * BLOCK) + b"x" * BLOCK + bytes(64 * BLOCK)), tmp_path / "copy", 129 * BLOCK)
    assert (tmp_path / "copy").stat().st_size == 129 * BLOCK
    assert files.allocated_bytes(tmp_path / "copy") <= 4 * BLOCK


def test_sparse_copy_of_a_short_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EOFError, match="1 bytes short of 11"):
        files.write_sparse(io.BytesIO(b"0123456789"), tmp_path / "copy", 11)


def test_part_of_a_file_is_taken_out_and_put_back_with_its_holes(tmp_path: Path) -> None:
    whole, at = tmp_path / "whole", 3 * BLOCK + 17
    part = os.urandom(BLOCK) + bytes(5 * BLOCK) + os.urandom(100)
    with whole.open("wb") as file:
        file.truncate(at)
        file.seek(at)
        file.write(part[:BLOCK])
        file.seek(at + 6 * BLOCK)
        file.write(part[-100:] + b"after it")
    files.take(whole, at, len(part), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == part
    assert files.allocated_bytes(tmp_path / "part") <= 3 * BLOCK
    with (tmp_path / "again").open("xb") as file:
        file.truncate(at + len(part))
    files.put(tmp_path / "part", tmp_path / "again", at)
    assert (tmp_path / "again").read_bytes() == bytes(at) + part
    with pytest.raises(EOFError):
        files.take(whole, at, 20 * BLOCK, tmp_path / "more")


@pytest.mark.parametrize("holes", [(0, 3 * BLOCK), (BLOCK + 17, 5 * BLOCK), (2 * BLOCK, 2 * BLOCK), (0, 0)])
def test_digest_and_copy_of_a_file_with_holes_are_those_of_its_content(tmp_path: Path, holes: tuple[int, int]) -> None:
    before, after = holes
    content = bytes(before) + os.urandom(BLOCK + 5) + bytes(after)
    with (tmp_path / "file").open("wb") as file:
        file.seek(before)
        file.write(content[before : before + BLOCK + 5])
        file.truncate(len(content))
    assert files.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    files.copy(tmp_path / "file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert files.allocated_bytes(tmp_path / "copy") <= 3 * BLOCK


def test_copy_of_an_empty_file_and_of_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    files.copy(tmp_path / "empty", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""
    assert files.sha256(tmp_path / "copy") == hashlib.sha256(b"").hexdigest()
    with pytest.raises(FileNotFoundError):
        files.copy(tmp_path / "missing", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_tree_bytes_counts_room_not_holes(tmp_path: Path) -> None:
    empty_bytes = files.tree_bytes(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "full").write_bytes(b"x" * 2**20)
    with (tmp_path / "below" / "hole").open("wb") as file:
        file.truncate(2**30)
    (tmp_path / "below" / "link").symlink_to("/usr")
    files.fsync(tmp_path / "below" / "full")  # some file systems count blocks only once they are written
    assert 2**20 <= files.tree_bytes(tmp_path) - empty_bytes < 2 * 2**20


def test_free_bytes_is_what_an_ordinary_user_may_write(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 <= files.free_bytes(tmp_path) <= status.f_bfree * status.f_frsize


def test_remove_takes_files_trees_and_links_but_not_what_links_point_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    doomed = tmp_path / "doomed"
    (doomed / "below").mkdir(parents=True)
    (doomed / "link").symlink_to(kept)
    link, dangling, file = tmp_path / "link", tmp_path / "dangling", tmp_path / "file"
    link.symlink_to(kept)
    dangling.symlink_to("nowhere")
    file.touch()
    for path in (doomed, link, dangling, file):
        files.remove(path)
    assert list(tmp_path.iterdir()) == [kept]
    assert list(kept.iterdir()) == [kept / "below"]


def test_fsync_takes_files_and_directories_and_leaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names only
    files.fsync(tmp_path / "file")
    files.fsync(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.fsync(tmp_path / "gone")
    assert not set(os.listdir("/proc/self/fd")) - set(before)  # noqa: PTH208


# -- what others do --------------------------------------------------------------------------------------------


def test_directory_has_one_time_while_nothing_changes_and_none_right_after_a_change(tmp_path: Path) -> None:
    """Whatever the clock here says: the times of directories are a file server's."""
    os.utime(tmp_path, (2**33, 2**33))  # far in the future
    assert files.changed_ns(tmp_path) is None
    time.sleep(0.05)
    settled = files.changed_ns(tmp_path)
    assert settled is not None
    assert files.changed_ns(tmp_path) == settled
    (tmp_path / "new").touch()
    assert files.changed_ns(tmp_path) is None


def test_what_is_there_is_known_by_its_name(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    assert not files.is_there(place, levels=2)
    place.parent.mkdir()
    assert not files.is_there(place)
    place.symlink_to("nowhere")
    assert files.is_there(place)
    place.unlink()
    place.write_text("old")
    with place.open("rb") as old:
        assert files.is_still(place, old.fileno())
        files.replace(place, b"new")
        assert not files.is_still(place, old.fileno())
        (tmp_path / "link").symlink_to(place)
        with place.open("rb") as new:
            assert files.is_still(tmp_path / "link", new.fileno())
    assert files.read_anew(place) == b"new"


def test_file_systems_of_this_kernel_are_told_from_others(tmp_path: Path) -> None:
    assert files.is_local(tmp_path)
    assert not files.is_local(Path("/proc"))


def test_what_a_killed_writer_left_goes_with_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    target, hour_s = tmp_path / "manifest[1].json", 3600
    names = {
        ".manifest[1].json.0123abcd": 2 * hour_s,
        ".manifest[1].json.89ef0123": hour_s // 2,
        ".manifest[1].json.backup": 2 * hour_s,
        ".manifest1.json.0123abcd": 2 * hour_s,
    }
    for name, age_s in names.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    files.replace_durably(target, b"whole")
    assert target.read_bytes() == b"whole"
    assert {path.name for path in tmp_path.iterdir()} == {target.name, *list(names)[1:]}


def test_a_mark_is_another_one_once_a_file_was_replaced(tmp_path: Path) -> None:
    assert files.mark(tmp_path / "file") == (0, 0, 0)
    files.replace(tmp_path / "file", b"one")
    before = files.mark(tmp_path / "file")
    assert before == files.mark(tmp_path / "file")
    files.replace(tmp_path / "file", b"two")
    assert files.mark(tmp_path / "file") != before
