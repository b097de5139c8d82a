"""Promises of process: an explicit environment, no input, a deadline, and nothing left behind."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp import locks, process
from construir_ftp.errors import CommandError, StoppedError

LONG_S = 60.0


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), descriptors_open()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(LONG_S)  # sh cancels its timers, but doesn't wait for them
        assert not thread.is_alive(), thread
    assert descriptors_open() == descriptors


def descriptors_open() -> set[int]:
    numbers = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    return {number for number in numbers if Path(f"/proc/self/fd/{number}").is_symlink()}  # not the listing's own


def test_run_returns_what_was_printed() -> None:
    assert process.run(["echo", "two words"], timeout_s=LONG_S) == "two words\n"


def test_run_passes_arguments_as_they_are_never_through_a_shell() -> None:
    assert process.run(["printf", "%s|", "$HOME", "a b", "*", "--x=1"], timeout_s=LONG_S) == "$HOME|a b|*|--x=1|"


def test_child_sees_only_the_environment_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    names = {line.partition("=")[0] for line in process.run(["env"], timeout_s=LONG_S).splitlines()}
    assert names == {"PATH", "LC_ALL"}
    extra = process.run(["env"], timeout_s=LONG_S, env=process.environment(SOURCE_DATE_EPOCH="0"))
    assert "SOURCE_DATE_EPOCH=0\n" in extra


def test_child_has_no_standard_input() -> None:
    assert process.run(["cat"], timeout_s=LONG_S) == ""


def test_whatever_is_raised_meanwhile_ends_the_command_and_all_it_has_started(tmp_path: Path) -> None:
    def give_up() -> None:
        if (tmp_path / "pid").exists():
            raise StoppedError("on purpose")

    script = f"sleep 1000 & echo $! >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait"
    with pytest.raises(StoppedError, match="on purpose"):
        process.run(["sh", "-c", script], timeout_s=LONG_S, meanwhile=give_up)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + LONG_S
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_that_is_printed_is_there_if_something_is_done_meanwhile() -> None:
    looks: list[None] = []
    said = process.run(["sh", "-c", "sleep 0.2; seq 20000"], timeout_s=LONG_S, meanwhile=lambda: looks.append(None))
    assert said.splitlines()[-1] == "20000"
    assert looks


def test_files_are_passed_as_input_and_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(range(256)) * 1000)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        assert process.run(["cat"], timeout_s=LONG_S, stdin=source, stdout=target) == ""
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_run_starts_where_it_is_told(tmp_path: Path) -> None:
    assert process.run(["pwd", "-P"], timeout_s=LONG_S, cwd=tmp_path) == f"{tmp_path.resolve()}\n"


def test_much_output_is_returned_whole() -> None:
    assert len(process.run(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' a"], timeout_s=LONG_S)) == 3_000_000


def test_output_that_is_not_utf8_is_no_crash() -> None:
    assert process.run(["printf", r"a\377b"], timeout_s=LONG_S) == "a\ufffdb"


def test_missing_program_is_named() -> None:
    with pytest.raises(CommandError, match=r"^no-such-program: not installed$"):
        process.run(["no-such-program"], timeout_s=LONG_S)
    with pytest.raises(CommandError, match=r"^/no/such: not installed$"):
        process.run([Path("/no/such")], timeout_s=LONG_S)


def test_failure_can_be_pasted_into_a_shell() -> None:
    with pytest.raises(CommandError) as caught:
        process.run(["sh", "-c", "echo out; echo bad >&2; echo worse >&2; exit 3", "a b"], timeout_s=LONG_S)
    assert str(caught.value) == (
        "exit status 3 from: sh -c 'echo out; echo bad >&2; echo worse >&2; exit 3' 'a b' (bad; worse)"
    )
    assert caught.value.said == "out\nbad\nworse"


def test_failure_quotes_only_the_end_of_much_output() -> None:
    with pytest.raises(CommandError) as caught:
        process.run(["sh", "-c", "seq 100000 >&2; exit 1"], timeout_s=LONG_S)
    assert len(str(caught.value)) < 600
    assert str(caught.value).endswith("99999; 100000)")


def test_death_by_a_signal_is_a_failure() -> None:
    with pytest.raises(CommandError, match=r"^exit status -9 from: .*\(it said nothing\)$"):
        process.run(["sh", "-c", "kill -9 $$"], timeout_s=LONG_S)


def test_directory_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^no directory /.*/gone to start in: pwd$"):
        process.run(["pwd"], timeout_s=LONG_S, cwd=tmp_path / "gone")


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead, and only not yet waited for, does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int) -> None:
    # SIGKILL is delivered asynchronously: give it time, but not for ever.
    pause = threading.Event()
    for _ in range(1000):
        if not alive(pid):
            return
        pause.wait(0.01)
    raise AssertionError(f"process {pid} still lives")


def test_late_command_is_killed_with_all_it_started(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 300 & echo $! >{tmp_path}/child; echo $$ >{tmp_path}/parent; wait"
    with pytest.raises(CommandError, match=r"^not done after 1 s: sh -c "):
        process.run(["sh", "-c", script], timeout_s=1)
    for name in ("parent", "child"):
        wait_until_dead(int((tmp_path / name).read_text()))


def test_failed_command_leaves_nothing_running(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"exit status 1"):
        process.run(["sh", "-c", f"sleep 300 >/dev/null 2>&1 & echo $! >{tmp_path}/child; exit 1"], timeout_s=LONG_S)
    wait_until_dead(int((tmp_path / "child").read_text()))


IMMORTAL = """
import sys
from pathlib import Path
from construir_ftp import locks, process
with locks.held(Path(sys.argv[1])) as lock:
    process.run(["sh", "-c", sys.argv[2]], timeout_s=300, lock=lock)
"""


@pytest.mark.long
def test_a_command_with_a_lock_ends_with_a_starter_that_is_killed_and_holds_the_lock_until_then(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 300 & echo $! >{tmp_path}/child; echo $$ >{tmp_path}/new; "
    script += f"mv {tmp_path}/new {tmp_path}/parent; wait"
    with process.spawn([sys.executable, "-c", IMMORTAL, tmp_path / "lock", script]) as starter:
        deadline = time.monotonic() + LONG_S
        while not (tmp_path / "parent").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        starter.kill()
    with pytest.raises(BlockingIOError), locks.held(tmp_path / "lock", wait=False):
        pass
    with locks.held(tmp_path / "lock"):
        for name in ("parent", "child"):
            wait_until_dead(int((tmp_path / name).read_text()))


def test_a_lock_changes_nothing_of_what_a_command_gets_and_how_it_fails(tmp_path: Path) -> None:
    with locks.held(tmp_path / "lock") as lock:
        names = {line.partition("=")[0] for line in process.run(["env"], timeout_s=LONG_S, lock=lock).splitlines()}
        assert names == {"PATH", "LC_ALL"}
        with pytest.raises(CommandError, match=r"^no-such-program: not installed$"):
            process.run(["no-such-program"], timeout_s=LONG_S, lock=lock)
        with pytest.raises(CommandError, match=r"^exit status 3 from: sh -c 'echo bad >&2; exit 3' \(bad\)$"):
            process.run(["sh", "-c", "echo bad >&2; exit 3"], timeout_s=LONG_S, lock=lock)
        with pytest.raises(CommandError, match=r"^not done after 1 s: sleep 300$"):
            process.run(["sleep", "300"], timeout_s=1, lock=lock)
        assert not os.get_inheritable(lock)
    with locks.held(tmp_path / "lock"):  # what was killed gives it back a moment later
        pass


def test_run_works_in_any_thread() -> None:
    said = []
    thread = threading.Thread(target=lambda: said.append(process.run(["echo", "hi"], timeout_s=LONG_S)))
    thread.start()
    thread.join()
    assert said == ["hi\n"]


def test_find_knows_what_is_installed() -> None:
    assert process.find("sh") in ("/usr/bin/sh", "/bin/sh")
    assert process.find("no-such-program") is None


# -- spawn -----------------------------------------------------------------------------------------------------


def test_spawned_child_has_its_own_session_and_no_input() -> None:
    with process.spawn(["cat"]) as child:
        session = os.getsid(child.pid)  # a child that has ended, but was not waited for, still has one
        assert child.wait() == 0
        assert session == child.pid


def test_spawned_child_gets_only_the_descriptors_and_environment_it_is_given(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    other = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(other, True)
    with (tmp_path / "out").open("wb") as out:
        script = f"echo hi >/proc/self/fd/{write_end}; /usr/bin/env; test ! -e /proc/self/fd/{other}"
        with process.spawn(["sh", "-c", script], pass_fds=[write_end], stdout=out, env={"ONLY": "this"}) as child:
            status = child.wait()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b"hi\n"
    os.close(other)
    assert status == 0
    assert "ONLY=this" in (tmp_path / "out").read_text()
    assert "LC_ALL" not in (tmp_path / "out").read_text()


def test_spawned_child_is_ended_by_its_pid() -> None:
    with process.spawn(["sleep", "300"]) as child:
        pidfd = os.pidfd_open(child.pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        os.close(pidfd)


def test_spawn_of_a_missing_or_unusable_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^no-such-program: not installed$"):
        process.spawn(["no-such-program"])
    (tmp_path / "data").touch(mode=0o644)
    with pytest.raises(CommandError, match=r"^can't be started .Permission denied.: "):
        process.spawn([tmp_path / "data"])
