"""The users file, as each login reads it."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from construir_ftp.errors import ConfigError
from construir_ftp.ftp.users import Users
from tests.fuzz.targets import Attempt, Settle, demand_line

# What costs more than a moment to check is asked for by the operator.
_CHEAP = re.compile(r"\$m=0*[0-9]{1,2},t=0*[0-3],p=0*[0-4]\$")


def _ask(users: Users) -> None:
    for name in users.names():
        users.mail(name)
        users.keyring(name)
        users.weight(name)
        if _CHEAP.search(users._current()[name].password):
            users.check(name, "correct horse")


@contextmanager
def target() -> Iterator[tuple[Attempt, Settle]]:
    """Whatever it holds, a login is decided, or told what is wrong with the file."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "users.toml"

        def attempt(data: bytes) -> None:
            path.write_bytes(data)
            try:
                _ask(Users(path))
            except ConfigError as error:
                demand_line(str(error))

        yield attempt, lambda: None
