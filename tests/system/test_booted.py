"""The Debian package on a computer that boots with systemd: what its owner sees of it, from the first start on.

The machines in it are emulated, by a processor that is not: all of it takes minutes.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from construir_ftp.image.baseimage import BaseImage
from tests.support import computer, debianpackage
from tests.support.computer import Computer
from tests.support.places import PROJECT

pytestmark = [
    pytest.mark.root("its system is made as root"),
    pytest.mark.slow("a computer is booted, and machines in it, without KVM"),
]
# A machine that hangs while it boots is tried again within JOB_S.
SLOW = """
[runner]
slots = 1
grace = "1s"
[machine]
warm = false
accelerator = "tcg"
boot_timeout = "15min"
mount_timeout = "1h"
idle_timeout = "2h"
[notify]
command = ["true"]
"""
SPOOL = "/var/lib/construir/spool"
JOB_S = 3600
SCORES = {"ftp": 3.5, "runner": 5.5, "janitor": 1.5, "site": 1.5, "news": 1.5}
# By the service that is to be started again, so much longer than its WatchdogSec.
WATCHDOG_S = 600
# Of a runner that may be silent for 10 s, while each trial of a machine takes 30 s.
IMPATIENT = """
mkdir -p /run/systemd/system/construir-runner.service.d
printf '[Service]\\nWatchdogSec=10\\n' >/run/systemd/system/construir-runner.service.d/impatient.conf
printf '#!/bin/sh\\nexec sleep 1000\\n' >/usr/local/bin/hangs && chmod +x /usr/local/bin/hangs
sed -i 's|^boot_timeout = .*|boot_timeout = "30s"\\nqemu = "/usr/local/bin/hangs"|' /etc/construir/construir.toml
systemctl daemon-reload && systemctl restart construir-runner
"""
PATIENT = """
rm -r /run/systemd/system/construir-runner.service.d
sed -i 's|^boot_timeout = .*|boot_timeout = "15min"|; /^qemu = /d' /etc/construir/construir.toml
systemctl daemon-reload && systemctl restart construir-runner
"""


class Spare(NamedTuple):
    """The computer, with the package of the commit before, and who may send jobs there."""

    host: Computer
    password: str

    def do(self, script: str, timeout_s: float = computer.COMMAND_S) -> str:
        return self.host.do(f"PASSWORD={self.password}\ncd /root\n{script}", timeout_s)

    def send(self, name: str) -> str:
        """Send a small job of that name; its id."""
        said = self.do(
            f"mkdir -p {name} && printf '#!/bin/sh\\necho hello from {name}\\nsleep 20\\n' >{name}/run.sh\n"
            f"chmod +x {name}/run.sh && construir pack {name} --space 1MiB -o {name}.img.zst >/dev/null\n"
            f"curl -sv -T {name}.img.zst -u builder:$PASSWORD ftp://127.0.0.1/queue/ 2>&1 | grep '^< 226 Acc'"
        )
        return accepted(said)

    def wait_for_result(self, job: str) -> str:
        """Its output, by anonymous FTP."""
        self.host.wait_for(f"curl -sf ftp://127.0.0.1/done/{job}/result.json | grep '\"success\"'", JOB_S)
        return self.do(f"curl -sf ftp://127.0.0.1/done/{job}/output.log")


def accepted(reply: str) -> str:
    (job,) = re.findall(r"226 Accepted as job ([^ ,]+),", reply)
    return str(job)


def install(package: Path) -> str:
    return f"DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends /mnt/{package.name} 2>&1"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """That of the commit before this one, and this one's."""
    if subprocess.run(["git", "diff", "--quiet", "HEAD~1", "--", "base-image"], cwd=PROJECT, check=False).returncode:
        pytest.skip("the commit before would make another base image, which takes a network")
    before = debianpackage.make_of("HEAD~1", tmp_path_factory.mktemp("before"))
    return before, debianpackage.make(tmp_path_factory.mktemp("now") / "out")


@pytest.fixture(scope="module", params=computer.SUITES)
def spare(
    request: pytest.FixtureRequest,
    packages: tuple[Path, Path],
    base: BaseImage,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Spare]:
    place, stick = tmp_path_factory.mktemp("computer"), tmp_path_factory.mktemp("stick")
    for package in packages:
        shutil.copy(package, stick)
    computer.copy_image(base, stick / "images")
    computer.make_disk(stick, place / "stick.img", 256)
    with Computer(request.param, place, place / "stick.img").on() as booted:
        booted.do("mkdir -p /var/lib/construir && cp -a --sparse=always /mnt/images /var/lib/construir/images")
        booted.do(install(packages[0]), JOB_S)
        booted.do(f"cat >>/etc/construir/construir.toml <<'END'\n{SLOW}END\n")
        said = booted.do("construir setup --yes", JOB_S)
        (password,) = re.findall(r"^Password:    (\S+) ", said, re.MULTILINE)
        assert "hello from a machine of Linux" in said
        yield Spare(booted, password)


def test_it_runs_and_its_first_job_is_done(spare: Spare) -> None:
    parts = " ".join(f"construir-{part}" for part in SCORES)
    assert set(spare.do(f"systemctl is-active construir.target {parts}").split()) == {"active"}
    assert spare.do("systemctl --failed --plain --no-legend") == ""
    assert len(spare.do("curl -s --list-only ftp://127.0.0.1/done/").splitlines()) == 1
    assert spare.do("stat -c %U /proc/$(systemctl show -P MainPID construir-ftp)") == "construir"


def test_systemd_takes_its_units_for_safe_enough(spare: Spare) -> None:
    for part, most in SCORES.items():
        said = spare.do(f"systemd-analyze security --no-pager construir-{part} | tail -n 1")
        (score,) = re.findall(r"service: ([0-9.]+) ", said)
        assert float(score) <= most, said


def test_the_journal_is_asked_by_job_and_by_contributor(spare: Spare) -> None:
    job = spare.do("curl -s --list-only ftp://127.0.0.1/done/").strip()
    assert "success" in spare.do(f"journalctl --no-pager -o cat JOB={job}")
    assert f"226 Accepted as job {job}" in spare.do("journalctl --no-pager -o cat CONTRIBUTOR=builder")


def test_a_part_that_stands_still_is_started_again(spare: Spare) -> None:
    before = spare.do("systemctl show -P MainPID construir-ftp")
    spare.do(f"kill -STOP {before}")
    spare.host.wait_for(f"[ $(systemctl show -P MainPID construir-ftp) -gt {before} ]", WATCHDOG_S)
    spare.host.wait_for("systemctl is-active construir-ftp && curl -s ftp://127.0.0.1/", WATCHDOG_S)
    assert "watchdog" in spare.do("journalctl --no-pager -u construir-ftp").lower()


def said_by_runner(since: str, words: str, times: int = 1) -> str:
    return f"[ $(journalctl --no-pager -o cat -u construir-runner --since=@{since} | grep -c '{words}') -ge {times} ]"


def test_runner_is_not_taken_for_hung_while_it_tries_whether_machines_come_up(spare: Spare) -> None:
    since = spare.do(f"date +%s\n{IMPATIENT}")
    job = spare.send("patience")
    spare.host.wait_for(said_by_runner(since, "no job can be run", 2), JOB_S)
    assert spare.do("systemctl show -P NRestarts construir-runner") == "0"
    spare.do(f"construir cancel --here {job}\n{PATIENT}")
    spare.host.wait_for(f"grep cancelled /var/lib/construir/spool/done/{job}/result.json")


def test_jobs_give_way_to_who_uses_the_computer(spare: Spare) -> None:
    manners = 'when = "idle"\\nbusy = 60\\naway = "0s"\\npriority = "low"'
    since = spare.do(
        "cp /etc/construir/construir.toml before.toml && date +%s\n"
        f"sed -i 's|^slots = 1|&\\n{manners}|' /etc/construir/construir.toml && systemctl restart construir-runner"
    )
    assert spare.do("cat /sys/fs/cgroup/construir.slice/cpu.weight /sys/fs/cgroup/system.slice/cpu.weight") == "1\n100"
    job = spare.send("gives-way")
    spare.host.wait_for("grep -ls qemu /proc/[0-9]*/comm", JOB_S)
    spare.do("systemd-run --quiet --unit=busy sh -c 'while :; do :; done'")
    spare.host.wait_for(said_by_runner(since, "machines stand still: its computer is busy with other work"))
    states = "for comm in $(grep -ls qemu /proc/[0-9]*/comm); do cut -d' ' -f3 ${comm%comm}stat; done | sort -u"
    spare.host.wait_for(f'[ "$({states})" = T ]')
    spare.do(
        "systemctl stop busy && cp before.toml /etc/construir/construir.toml && systemctl restart construir-runner"
    )
    assert spare.do("cat /sys/fs/cgroup/construir.slice/cpu.weight") == "100"
    assert spare.wait_for_result(job) == "hello from gives-way"


def test_nothing_is_lost_by_an_upgrade_and_a_reboot(spare: Spare, packages: tuple[Path, Path]) -> None:
    runs, waits = spare.send("runs"), spare.send("waits")
    spare.host.wait_for(f"curl -sf ftp://127.0.0.1/running/{runs}/", JOB_S)
    spare.do(
        "mkdir -p cut && cp runs/run.sh cut && head -c 3M /dev/urandom >cut/ballast\n"
        "construir pack cut --space 1MiB -o cut.img.zst >/dev/null\n"
        "systemd-run --quiet --unit=sending curl -s --limit-rate 4K -T /root/cut.img.zst"
        " -u builder:$PASSWORD ftp://127.0.0.1/queue/"
    )
    spare.host.wait_for("journalctl --no-pager -o cat CONTRIBUTOR=builder | grep \"sends 'cut.img.zst'\"")
    spare.do(install(packages[1]), JOB_S)
    assert spare.do("dpkg-query -W -f '${Version}' construir") in packages[1].name
    spare.host.wait_for("systemctl is-active construir-ftp && systemctl is-active construir-runner", JOB_S)
    unpacked_s = spare.do(
        "date -d \"$(grep ' status unpacked construir' /var/log/dpkg.log | tail -n 1 | cut -c1-19)\" +%s"
    )
    for part in SCORES:
        stopped, started = spare.do(
            f"for when in InactiveEnter ActiveEnter; do"
            f' date -d "$(systemctl show -P ${{when}}Timestamp construir-{part})" +%s; done'
        ).split()
        assert int(stopped) <= int(unpacked_s) <= int(started), part
    continued = accepted(
        spare.do(
            "curl -sv -C - -T cut.img.zst -u builder:$PASSWORD ftp://127.0.0.1/queue/ 2>&1 | grep '^< [1-5]'", JOB_S
        )
    )
    sent = spare.do("journalctl --no-pager -o cat CONTRIBUTOR=builder | grep 'from byte' | tail -n 1")
    assert not sent.endswith(" byte 0"), sent
    spare.host.reboot()
    for job, name in ((runs, "runs"), (waits, "waits"), (continued, "runs")):
        assert spare.wait_for_result(job) == f"hello from {name}"
    states = f"{SPOOL}/queue {SPOOL}/running"
    assert spare.do(f"find {states} -mindepth 1 -maxdepth 1") == ""
    spare.host.wait_for("systemctl is-system-running", computer.BOOT_S)


def test_node_on_the_front_s_own_computer_runs_a_job_and_gives_back_what_it_is_stopped_at(spare: Spare) -> None:
    spare.do("construir node drain local && systemctl start construir-node")
    # It takes their place.
    spare.host.wait_for("! systemctl is-active construir.target construir-ftp construir-runner")
    # A front that runs nothing itself.
    spare.do("systemctl start construir-ftp construir-runner")
    spare.host.wait_for("construir nodes | grep -E '^ *spare +there'")
    job = spare.send("elsewhere")
    assert spare.wait_for_result(job) == "hello from elsewhere"
    assert "success" in spare.do(f"journalctl --no-pager -o cat -u construir-node JOB={job}")
    given_back = spare.send("given-back")
    spare.host.wait_for(f"grep 'hello from given-back' {SPOOL}/running/spare.*/{given_back}/output.log", JOB_S)
    spare.do("systemctl stop construir-node")
    assert spare.do("systemctl show -P Result construir-node") == "success"
    assert spare.do(f"ls {SPOOL}/queue") == given_back
    spare.do("construir node resume local && systemctl start construir.target")
    assert spare.wait_for_result(given_back) == "hello from given-back"


def test_node_of_a_name_that_no_node_can_have_is_not_started_again(spare: Spare) -> None:
    spare.do("hostname 1st && systemctl daemon-reload && ! systemctl start construir-node")
    assert set(spare.do("systemctl show -P ActiveState -P NRestarts construir-node").split()) == {"failed", "0"}
    assert "a node's name is" in spare.do("journalctl --no-pager -o cat -u construir-node | tail -n 5")
    spare.do("hostname spare && systemctl daemon-reload && systemctl reset-failed construir-node")
    spare.do("systemctl start construir.target")
    spare.host.wait_for("systemctl is-active construir-ftp && systemctl is-active construir-runner", JOB_S)


def test_part_whose_port_is_taken_is_started_until_it_is_free(spare: Spare) -> None:
    listens = "import socket, time; taken = socket.create_server(('127.0.0.1', 8021)); time.sleep(1e6)"
    spare.do(f'systemd-run --quiet --unit=taken python3 -c "{listens}" && sleep 5')
    spare.host.try_to("systemctl start construir-web")
    # More often than systemd has it by default, and within less time.
    spare.host.wait_for("[ $(systemctl show -P NRestarts construir-web) -ge 6 ]")
    spare.do("systemctl stop taken")
    spare.host.wait_for("systemctl is-active construir-web && curl -sf http://127.0.0.1:8021/ >/dev/null")
    spare.do("systemctl stop construir-web")


def test_older_program_leaves_a_newer_spool_alone_and_comes_back_where_its_form_is_known(
    spare: Spare, packages: tuple[Path, Path]
) -> None:
    done = spare.do("ls /var/lib/construir/spool/done")
    spare.do("cat /var/lib/construir/spool/format; echo 2 >/var/lib/construir/spool/format")
    spare.do("systemctl restart construir-runner construir-ftp || true")
    words = "is of format 2, which a newer Construir has made; this one knows 1 at most"
    for part in ("runner", "ftp"):
        spare.host.wait_for(f"journalctl --no-pager -o cat -b -u construir-{part} | grep '{words}'")
    spare.do("echo 1 >/var/lib/construir/spool/format")
    spare.do(f"{install(packages[0])} --allow-downgrades", JOB_S)
    assert spare.do("dpkg-query -W -f '${Version}' construir") in packages[0].name
    spare.host.wait_for("systemctl is-active construir-ftp && systemctl is-active construir-runner", JOB_S)
    assert spare.do("ls /var/lib/construir/spool/done") == done
    assert spare.wait_for_result(spare.send("back")) == "hello from back"
