"""progress: how far an installation is, by what is printed in its machine, of which only known names are passed on."""

import threading
from pathlib import Path

import pytest

from construir_ftp.layers import progress

_PACKAGES = ("libc6-dev", "gcc", "g++")
_SAID = """Selecting previously unselected package libc6-dev:amd64.
Preparing to unpack libc6-dev_2.36-9_amd64.deb ...
Unpacking libc6-dev:amd64 (2.36-9) ...
Unpacking gcc (4:12.2.0-3) ...
Setting up libc6-dev:amd64 (2.36-9) ...
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", ""),
        ("(Reading database ... 5%\n", ""),
        (_SAID, "step 3 of 6, setting up libc6-dev"),
        (_SAID + "Unpacking g++ (4:12", "step 4 of 6, unpacking g++"),
        ("Unpacking gcc (1) ...\n" * 9, "step 1 of 6, unpacking gcc"),
        ("Setting up evil (1) ...\nSetting up gcc\x1b[31m (1)\n  Setting up gcc (1)\n", ""),
    ],
)
def test_steps_are_counted_once_and_nothing_else_is_passed_on(said: str, words: str) -> None:
    assert progress.words(said, _PACKAGES) == words


@pytest.mark.long
def test_it_is_told_while_it_goes_on_and_by_nobody_afterwards(tmp_path: Path) -> None:
    seen: list[str] = []
    is_told = threading.Event()

    def tell(words: str) -> None:
        seen.append(words)
        is_told.set()

    log = tmp_path / "output.log"
    with progress.told(log, _PACKAGES, tell):
        log.write_text(_SAID)
        assert is_told.wait(60)
    assert seen == ["step 3 of 6, setting up libc6-dev"]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
