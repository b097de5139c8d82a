"""Python's urllib: it only fetches."""

import os
import platform
import shutil
import sys
from urllib.request import urlopen


def main(action: str, source: str = "", target: str = "") -> None:
    """Do one thing."""
    if action == "version":
        print("Python", platform.python_version())
        return
    env = os.environ
    place = f"ftp://{env['FTP_USER']}:{env['FTP_PASSWORD']}@{env['FTP_HOST']}:{env['FTP_PORT']}"
    with urlopen(f"{place}/done/{source}", timeout=30) as answer, open(target, "wb") as file:
        shutil.copyfileobj(answer, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
