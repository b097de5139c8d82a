"""One target, fuzzed in a process of its own, since libFuzzer ends the process that it is in."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CORPUS, TARGETS = (Path(__file__).with_name(name) for name in ("corpus", "targets"))
# A single input that takes longer hangs.
INPUT_S, MOST_MEMORY_MIB = 60, 1024
_FAULT_CHARACTERS = 6000
_EXECUTED = re.compile(r"stat::number_of_executed_units: *(\d+)")
_REACHED = re.compile(r"\bft: (\d+)")


class Campaign(NamedTuple):
    """How it went: a line for people, the words of the first fault, and the input that had it."""

    inputs: int
    summary: str
    fault: str
    input: Path | None


def names() -> list[str]:
    """Of all targets."""
    return sorted(path.stem for path in TARGETS.glob("[!_]*.py"))


def run(name: str, inputs: int, seed: int, place: Path) -> Campaign:
    """Fuzz a target by so many inputs; `place` is an empty directory. A `seed` of 0 is another one each time."""
    (place / "found").mkdir()
    (place / "scratch").mkdir()
    flags = [f"-runs={inputs}", f"-seed={seed}", f"-timeout={INPUT_S}", f"-rss_limit_mb={MOST_MEMORY_MIB}"]
    flags += [f"-artifact_prefix={place}/", "-print_final_stats=1", "-max_len=4096", str(place / "found")]
    argv = [sys.executable, "-m", "tests.fuzz.driver", name, *flags, str(CORPUS / name)]
    environment = {**os.environ, "TMPDIR": str(place / "scratch")}
    ended = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False)
    said = ended.stdout.decode(errors="replace")
    executed, reached = _EXECUTED.search(said), _REACHED.findall(said)
    count = int(executed[1]) if executed else 0
    said = "\n".join(line for line in said.splitlines() if not line.startswith("INFO: Instrumenting"))
    fault = said[-_FAULT_CHARACTERS:] if ended.returncode or count < inputs else ""
    kept = next((path for path in sorted(place.iterdir()) if path.is_file()), None)
    summary = f"{name}: {count} inputs, {(reached or [0])[-1]} features, {'A FAULT' if fault else 'no fault'}"
    return Campaign(count, summary, fault, kept)
