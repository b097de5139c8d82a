"""Layers that a server shows, brought whole: for who runs a job again that had them."""

import ftplib
from contextlib import closing
from pathlib import Path

from construir_ftp.client import remote_files
from construir_ftp.errors import AnswerError, plainly
from construir_ftp.jobs import portable_names


def bring(ftp: ftplib.FTP, name: str, files: tuple[str, ...], place: Path, most_bytes: int) -> bool:
    """Bring the files of a layer into a directory, each of so many bytes at most; whether the server has it.

    Raises AnswerError where there is more of it.
    """
    if portable_names.why_no_path(name) or "/" in name:
        return False
    for file in files:
        path = f"/layers/{name}/{file}"
        if remote_files.size(ftp, path) is None:
            return False
        came_bytes = 0
        with closing(remote_files.pieces(ftp, path)) as pieces, plainly(place), (place / file).open("wb") as target:
            for piece in pieces:
                came_bytes += len(piece)
                if came_bytes > most_bytes:
                    raise AnswerError(f"the server's layer {name} is larger than {most_bytes} bytes")
                target.write(piece)
    return True
