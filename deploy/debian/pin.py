"""Pin what lies in a directory: `pin.py DIRECTORY` prints pip's requirements, each with the SHA-256 of its files."""

import hashlib
import re
import sys
from collections import defaultdict
from pathlib import Path

# A wheel is NAME-VERSION-TAGS.whl (packaging.python.org, binary distribution format), a source NAME-VERSION.tar.gz.
_FILE = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*?)(-.+\.whl|\.tar\.gz)")


def main(directory: Path) -> None:
    """Print a requirement a line, in the order of their names."""
    digests = defaultdict(set)
    for path in directory.iterdir():
        match = _FILE.fullmatch(path.name)
        if match is None:
            sys.exit(f"{path.name}: neither a wheel nor a source")
        requirement = f"{match['name'].replace('_', '-').lower()}=={match['version']}"
        digests[requirement].add(hashlib.sha256(path.read_bytes()).hexdigest())
    for requirement, found in sorted(digests.items()):
        print(requirement, *(f"--hash=sha256:{digest}" for digest in sorted(found)), sep=" \\\n    ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
