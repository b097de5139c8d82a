"""Fuzz all targets, or some: how many inputs each had, how much of the code they reached, and the first fault."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.fuzz import campaign


def main() -> int:
    """Run each target in a process of its own; 1 if one has a fault, whose input is kept in the working directory."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(campaign.names())}; all if none")
    parser.add_argument("--inputs", type=int, default=10_000, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0: another one each time")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(campaign.names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    faults = 0
    for name in asked.targets or campaign.names():
        with tempfile.TemporaryDirectory(prefix="construir-fuzz-") as place:
            found = campaign.run(name, asked.inputs, asked.seed, Path(place))
            print(found.summary, flush=True)
            if found.fault:
                faults += 1
                kept = shutil.copy(found.input, f"fault-{name}") if found.input else "none"
                print(f"{found.fault}\ninput: {kept}", flush=True)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
