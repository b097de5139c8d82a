"""Python's ftplib."""

import ftplib
import os
import platform
import ssl
import sys


def connect() -> ftplib.FTP:
    """A client, logged in."""
    env = os.environ
    client = ftplib.FTP()
    if env["FTP_TLS"]:
        client = ftplib.FTP_TLS(context=ssl.create_default_context(cafile=env["FTP_CA"]))
    client.connect(env["FTP_HOST"], int(env["FTP_PORT"]), timeout=30)
    client.login(env["FTP_USER"], env["FTP_PASSWORD"])
    if isinstance(client, ftplib.FTP_TLS):
        client.prot_p()
    return client


def main(action: str, source: str = "", target: str = "") -> None:
    """Do one thing."""
    if action == "version":
        print("Python", platform.python_version())
        return
    with connect() as client:
        if action == "fetch":
            with open(target, "wb") as file:
                print(client.retrbinary(f"RETR done/{source}", file.write))
            return
        with open(source, "rb") as file:
            kept = (client.size(f"queue/{target}") or 0) if action == "continue" else 0
            file.seek(kept)
            print(client.storbinary(f"STOR queue/{target}", file, rest=kept or None))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ftplib.Error as error:
        sys.exit(str(error))
