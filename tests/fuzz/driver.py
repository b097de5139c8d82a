"""What runs in the process of one target: `python -m tests.fuzz.driver TARGET LIBFUZZER-OPTION ...`.

Beside exceptions, whatever is logged as an error is a fault, and so is what is left after some hundreds of inputs: a
descriptor, a thread, a child. libFuzzer itself looks at the memory, and at the time that an input takes.
"""

import importlib
import logging
import sys
from collections.abc import Callable

import atheris

from tests.support.belongings import POOLS, Belongings, nothing_since
from tests.support.watchedlog import watched_log

# Only what is imported within tells which of its lines were reached. That takes ten times as long as to import it
# otherwise, so that nothing is imported here but what the target needs.
with atheris.instrument_imports(include=["construir_ftp"]):
    target = importlib.import_module(f"tests.fuzz.targets.{sys.argv.pop(1)}").target

# What is found at its first use and kept has come by then.
_WARM_INPUTS, _LOOK_EVERY = 100, 500


def main() -> None:
    """Never returns."""
    logging.lastResort = None
    with watched_log("waitress", "pyftpdlib") as faults, target() as (attempt, settle):
        atheris.Setup(sys.argv, _watched(attempt, settle, faults))
        atheris.Fuzz()


def _watched(
    attempt: Callable[[bytes], None], settle: Callable[[], None], faults: list[str]
) -> Callable[[bytes], None]:
    """The same as `attempt`, and a look at what is left every now and then."""
    count, before = 0, Belongings.now()

    def one(data: bytes) -> None:
        nonlocal count, before
        attempt(data)
        assert not faults, f"logged: {faults[0]}"
        count += 1
        if count == _WARM_INPUTS:
            settle()
            before = Belongings.now()
        elif count % _LOOK_EVERY == 0:
            settle()
            nothing_since(before, f"after {count} inputs", POOLS)

    return one


if __name__ == "__main__":
    main()
