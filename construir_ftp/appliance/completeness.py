"""Whether all of this program is here: each module of it can be imported, with the libraries that it names.

A library that only one part needs, or only one version of Python, would be missed by nobody until that part is started.
"""

import importlib
import pkgutil

import construir_ftp
from construir_ftp.errors import ConstruirError


def look() -> str:
    """Import all modules; in words, how many there are. Raises ConstruirError that names what is missing."""
    names = [
        found.name
        for found in pkgutil.walk_packages(construir_ftp.__path__, "construir_ftp.")
        if not found.name.endswith(".__main__")  # which runs the command
    ]
    for name in names:
        _load(name)
    return f"all {len(names)} modules can be loaded"


def _load(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ConstruirError(f"{name} can't be loaded: {error}") from error
