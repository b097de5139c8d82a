"""The reader of a .dsc or a .changes: a program in a jail.

    construir_ftp.intake.control_reader     standard input is the file, standard output its source_package.Control

What is wrong with it is said in one line on standard error.
"""

import sys

import msgspec

from construir_ftp.errors import RefusedError, one_line
from construir_ftp.jobs import source_package


def main() -> None:
    """Write what it says to standard output, as JSON."""
    try:
        said = source_package.parse(sys.stdin.buffer.read(source_package.MOST_BYTES + 1))
    except RefusedError as error:
        raise SystemExit(ascii(one_line(error))[1:-1]) from error
    sys.stdout.buffer.write(msgspec.json.encode(said))


if __name__ == "__main__":
    main()
