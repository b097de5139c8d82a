"""ftputil, a library of Python: files of a server as if they were one's own."""

import ftplib
import os
import shutil
import ssl
import sys

import ftputil
import ftputil.error
import ftputil.session


def connect() -> ftputil.FTPHost:
    """A host, logged in."""
    env = os.environ
    context = ssl.create_default_context(cafile=env["FTP_CA"])

    class Secure(ftplib.FTP_TLS):
        def __init__(self, *args: object) -> None:
            super().__init__(context=context)

    factory = ftputil.session.session_factory(
        base_class=Secure if env["FTP_TLS"] else ftplib.FTP,
        port=int(env["FTP_PORT"]),
        encrypt_data_channel=bool(env["FTP_TLS"]),
    )
    return ftputil.FTPHost(env["FTP_HOST"], env["FTP_USER"], env["FTP_PASSWORD"], session_factory=factory)


def main(action: str, source: str = "", target: str = "") -> None:
    """Do one thing."""
    if action == "version":
        print("ftputil", ftputil.__version__)
        return
    with connect() as host:
        if action == "fetch":
            host.download(f"done/{source}", target)
        elif action == "send":
            host.upload(source, f"queue/{target}")
        else:
            kept = host.path.getsize(f"queue/{target}")
            with open(source, "rb") as ours, host.open(f"queue/{target}", "wb", rest=kept) as theirs:
                ours.seek(kept)
                shutil.copyfileobj(ours, theirs)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ftputil.error.FTPError as error:
        sys.exit(str(error))
