"""Promises of need and of what is asked of Slurm: numbers and words, without a Slurm."""

from pathlib import Path

import msgspec
import pytest

from construir_ftp import config
from construir_ftp.errors import ConfigError
from construir_ftp.jobs import nodes
from construir_ftp.jobs.nodes import Machines, Offered
from construir_ftp.jobs.request import Terms
from construir_ftp.jobs.spool import Spool
from construir_ftp.slurm import need
from construir_ftp.slurm.ledger import Ledger
from construir_ftp.slurm.logs import Logs
from construir_ftp.slurm.need import Need
from construir_ftp.slurm.order import Order, sbatch_args
from construir_ftp.slurm.trouble import Troubles
from construir_ftp.surroundings import SlurmSection
from construir_ftp.units import Duration, Size
from tests.support.records import send

_GIB = 2**30
OFFERED = Offered(
    program="0",
    architecture="amd64",
    processors=2,
    memory_bytes=_GIB,
    slots=1,
    default_base="bookworm-amd64",
    bases={"bookworm-amd64": Machines(digest="", architecture="amd64", accelerator="tcg")},
    terms=Terms(
        timeout_s=60.0, idle_timeout_s=60.0, cpus=2, memory_bytes=_GIB, image_bytes=_GIB, bases=("bookworm-amd64",)
    ),
)


def test_so_many_pilots_are_wanted_as_jobs_would_wait_without_them() -> None:
    assert Need(waiting=0, free=0, coming=0).more(1) == 0
    assert Need(waiting=5, free=1, coming=1).more(1) == 3
    assert Need(waiting=5, free=1, coming=1).more(2) == 2
    assert Need(waiting=1, free=4, coming=0).more(1) == 0


def test_no_more_are_too_many_than_are_on_their_way() -> None:
    assert Need(waiting=0, free=9, coming=2).too_many(1) == 2
    assert Need(waiting=1, free=0, coming=3).too_many(2) == 1
    assert Need(waiting=3, free=0, coming=3).too_many(1) == 0


def test_a_job_that_waits_for_a_result_wants_no_node(spool: Spool) -> None:
    first = send(spool)
    send(spool, after_s=1, after=[first.id])
    send(spool, after_s=2, after=["20200101T000000Z-0000-gone"])
    assert need.jobs(spool).total() == 2


def test_a_job_that_asks_for_what_pilots_do_not_have_wants_none(spool: Spool) -> None:
    send(spool)
    send(spool, after_s=1, construir_toml="cpus = 4\n")
    send(spool, after_s=2, construir_toml='base = "other"\n')
    assert need.jobs(spool).total() == 3
    assert need.jobs(spool, [OFFERED]).total() == 1


def with_image(digest: str, accelerator: str = "tcg") -> Offered:
    """The same, with another base image of that name, and machines of that kind."""
    machines = Machines(digest=digest, architecture="amd64", accelerator=accelerator)
    return msgspec.structs.replace(OFFERED, bases={OFFERED.default_base: machines})


FREE = need.Node(2, is_idle=True)


def test_jobs_want_no_pilots_that_have_another_base_image_than_the_front(spool: Spool) -> None:
    send(spool)
    front, same, other = with_image("sha256:a"), with_image("sha256:a"), with_image("sha256:b")
    assert need.jobs(spool, [other], front).total() == 0
    assert need.jobs(spool, [other, same], front).total() == 1
    assert need.jobs(spool, [other], None).total() == 1


def test_nodes_that_can_not_run_a_job_that_waits_keep_no_pilot_from_being_asked_for(spool: Spool) -> None:
    for number in range(5):
        send(spool, after_s=number)
    send(spool, after_s=5, construir_toml='accelerator = "kvm"\n')
    waiting = need.jobs(spool)
    assert waiting.total() == 6
    nodes.offer(spool.path, "local", with_image("sha256:a"))
    nodes.offer(spool.path, "other", with_image("sha256:b"))
    nodes.place(spool.path, "silent")
    assert need.free(spool, waiting, {"other": FREE, "silent": FREE}) == 0
    assert need.free(spool, waiting, {"local": FREE, "other": FREE}) == 2
    nodes.offer(spool.path, "any", with_image("sha256:a", accelerator=""))  # which is not known
    everywhere = {"any": need.Node(1, is_idle=True), "local": need.Node(9, is_idle=True)}
    assert need.free(spool, waiting, everywhere) == 6


def test_a_front_that_has_not_said_yet_what_it_has_is_counted_on(spool: Spool) -> None:
    send(spool)
    assert need.free(spool, need.jobs(spool), {"local": FREE}) == 1


def test_while_nobody_knows_which_nodes_live_none_are_told(spool: Spool) -> None:
    assert need.nodes_of(spool) is None
    with spool.lock():
        assert need.nodes_of(spool) == {"local": need.Node(0, is_idle=False)}


def test_slurm_is_asked_in_its_own_units_and_the_configuration_has_the_last_word() -> None:
    section = msgspec.structs.replace(
        SlurmSection(),
        time=Duration.parse("90s"),
        drain=Duration.parse("30s"),
        memory=Size(2**30 + 1),
        account="a b",
        options=("--qos=low",),
    )
    words = sbatch_args(section, Order("title", "whose", Path("/spool/a log"), ["node", "it's"]))
    assert {"--time=2", "--mem=1025M", "--account=a b", "--signal=B:TERM@30", "--requeue"} < set(words)
    assert not [word for word in words if word.startswith("--partition")]
    assert words[-2:] == ["--qos=low", """--wrap=exec node 'it'"'"'s'"""]


def test_a_pilot_has_to_have_time_before_it_is_told_to_end() -> None:
    with pytest.raises(ConfigError, match=r"slurm\.drain: expected less than slurm\.time"):
        config.parse('[slurm]\ntime = "1min"\ndrain = "1min"', "my.toml")


def test_what_the_ledger_has_survives_and_damage_to_it_is_no_pilot(spool: Spool) -> None:
    ledger = Ledger(spool.path)
    begun = ledger.begin()
    again = Ledger(spool.path)
    assert (list(again), again.mark, again.is_unsure()) == ([begun], ledger.mark, True)
    (spool.path / "pilots.json").write_bytes(b"\xff")
    assert list(Ledger(spool.path)) == []


def test_after_each_refusal_it_is_longer_until_the_next_pilot_is_asked_for() -> None:
    now_s, pauses = 0.0, []
    troubles = Troubles(lambda: now_s)
    for _ in range(7):
        troubles.begin("Slurm takes no pilot", "no such account")
        begun_s = now_s
        while troubles.have_to_wait():
            now_s += 1.0
        pauses.append(now_s - begun_s)
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    troubles.end("Slurm takes no pilot")
    troubles.begin("Slurm takes no pilot", "no such account")
    now_s += 30.0
    assert not troubles.have_to_wait()


def test_of_logs_the_last_ten_are_kept_and_those_of_pilots_that_live(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    for number in range(13):
        logs.place(f"pilot-{number}").write_text(f"{number}\n\n")
    logs.prune({"pilot-0"})
    assert len(list((tmp_path / "pilots").iterdir())) == 11
    assert logs.last_words("pilot-0").startswith("0 (")
    assert logs.last_words("pilot-none") == "it said nothing"
