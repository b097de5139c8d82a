"""aioftp, a library of Python's asyncio."""

import asyncio
import os
import ssl
import sys
from pathlib import Path

import aioftp


async def send(client: aioftp.Client, source: str, target: str, kept_bytes: int) -> None:
    """Send a job, or the rest of it."""
    async with client.upload_stream(f"queue/{target}", offset=kept_bytes) as stream:
        await stream.write(Path(source).read_bytes()[kept_bytes:])


async def run(action: str, source: str, target: str) -> None:
    """Do one thing."""
    env = os.environ
    client = aioftp.Client()
    await client.connect(env["FTP_HOST"], int(env["FTP_PORT"]))
    if env["FTP_TLS"]:
        await client.upgrade_to_tls(ssl.create_default_context(cafile=env["FTP_CA"]))
    await client.login(env["FTP_USER"], env["FTP_PASSWORD"])
    if action == "send":
        await send(client, source, target, 0)
    elif action == "continue":
        facts = await client.stat(f"queue/{target}")
        await send(client, source, target, int(facts["size"]))
    else:
        async with client.download_stream(f"done/{source}") as stream:
            Path(target).write_bytes(await stream.read())
    await client.quit()


def main(action: str, source: str = "", target: str = "") -> None:
    """Do one thing."""
    if action == "version":
        print("aioftp", aioftp.__version__)
    else:
        asyncio.run(run(action, source, target))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except aioftp.StatusCodeError as error:
        sys.exit(f"{error} {error.info}")
