"""A command of the operator's: the message's text on its standard input, the rest in its environment.

CONSTRUIR_SUBJECT, CONSTRUIR_EVENT (the message's id), CONSTRUIR_KINDS (of its events, with spaces between)

What it prints is thrown away; the end of its standard error is told where it fails.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from construir_ftp import process
from construir_ftp.errors import CommandError
from construir_ftp.news.delivery import UndeliveredError
from construir_ftp.news.events import Message

_TIMEOUT_S = 60.0


def run(argv: Sequence[str], message: Message, timeout_s: float = _TIMEOUT_S) -> None:
    """Have it told by the command, which says by its exit status 0 that it was. Raises UndeliveredError."""
    about = {
        "CONSTRUIR_SUBJECT": message.subject,
        "CONSTRUIR_EVENT": message.id,
        "CONSTRUIR_KINDS": " ".join(dict.fromkeys(event.kind for event in message.events)),
    }
    with tempfile.TemporaryFile() as file, Path(os.devnull).open("wb") as nowhere:
        file.write(message.text.encode(errors="replace"))
        file.seek(0)
        try:
            process.run(argv, timeout_s=timeout_s, stdin=file, stdout=nowhere, env=process.environment(**about))
        except CommandError as error:
            raise UndeliveredError(str(error)) from error
