"""All benchmarks, one after the other: python -m tests.bench [COUNT [COUNT]]. The others go on where one fails.

What is given is given to each of them; `python -m tests.bench 1 1` shows whether they work.
"""

import importlib
import pkgutil
import subprocess
import sys

from tests import bench


def main(arguments: list[str]) -> None:
    names = [found.name for found in pkgutil.iter_modules(bench.__path__) if found.name != "__main__"]
    for name in names:
        if hasattr(importlib.import_module(f"tests.bench.{name}"), "main"):
            print(f"\n== {name}", flush=True)
            status = subprocess.run([sys.executable, "-m", f"tests.bench.{name}", *arguments], check=False).returncode
            if status:
                print(f"{name} ended with status {status}")


if __name__ == "__main__":
    main(sys.argv[1:])
