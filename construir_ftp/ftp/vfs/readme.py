"""What a newcomer is told by /README.txt and SITE HELP: how to make a job, send it and follow it, and what it can have.

Its commands are for this server, but for SERVER, the name that a client reaches it by: a certificate is for that name,
and behind a router the server doesn't know it.
"""

import textwrap
from collections.abc import Iterator, Sequence

from construir_ftp import formats
from construir_ftp.config import Config
from construir_ftp.jobs.request import KEYS
from construir_ftp.units import Duration, Size

_TEXT = """\
This is Construir, a build appliance. You send a job by FTP, it runs in a virtual machine of
its own without a network, and you fetch what it made. Anyone may look and fetch, by anonymous
FTP; to send jobs you need a name and a password from whoever runs this server.

MAKE A JOB. A job is the image of a file system ({filesystems}) with an executable run.sh at
its root. run.sh is run as root in /job, which is that file system, mounted to be written to.

    mkdir hello
    printf '#!/bin/sh\\necho hello\\n' >hello/run.sh; chmod +x hello/run.sh
    /sbin/mke2fs -q -t ext4 -d hello hello.img 64M; zstd hello.img

or, where Construir is installed, which finds the right size by itself:

    construir pack hello

The image may be sent as it is, or in {codecs}.

SEND IT into /queue. The reply is the verdict: 226 and the job's id, or 550 and the reason. curl
shows replies with -v, and the password, too; lftp with debug 4. SERVER is the name or address by
which you reach this server.{tls}

    curl {curl}-v -T hello.img.zst --user NAME ftp://SERVER{port}/queue/
    lftp -u NAME -e 'debug 4; {lftp}put -O queue hello.img.zst; exit' ftp://SERVER{port}
    construir submit hello.img.zst --server ftp://NAME@SERVER{port}

What is cut can be continued for {incoming_age}: curl -C - -T, put -c, or REST and STOR. Files called
.NAME, tmp.NAME, NAME.part, NAME.partial, NAME.filepart or NAME.tmp start nothing until they
are renamed. Delete a job of yours in /queue or /running, and it is cancelled.

FOLLOW IT. SITE QUEUE, SITE STATUS ID and /status.json tell what waits and why, and
/running/ID/output.log what it prints. Its result is in /done/ID/: result.json, output.log,
console.log, the image as the job left it, SHA256SUMS; and in artifacts/ the files that outputs
names, see below. Results are signed: with /allowed_signers, and in /done/ID,

    ssh-keygen -Y verify -f allowed_signers -I construir -n construir -s SHA256SUMS.sig <SHA256SUMS

LIMITS. An upload: {max_upload}. Its image, unpacked: {max_image}. A job runs for {timeout},
or until it has printed nothing for {idle_timeout}; it has {cpus}, {memory} of memory, and its image
for its files. A result is kept for {max_age}, or less if the disk fills.

ASK FOR MORE in a file construir.toml beside run.sh. It is optional, and so is each of its keys.
Sizes and times are text with a unit, such as "2GiB" and "30m".

{keys}
"""
_FTP_PORT = 21
_WIDTH = 100
# What explains a key begins here.
_KEY_COLUMNS = 36

_SIZES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_DURATIONS = (("day", 86400), ("hour", 3600), ("minute", 60))


def text(config: Config, port: int) -> str:
    """The guide, for a server with this configuration on that port; lines of 100 columns at most."""
    cpus = config.machine.cpus
    is_strict = config.tls.require_tls
    return _TEXT.format(
        filesystems=_any_of(config.gate.filesystems),
        codecs=_any_of([row.name for row in formats.FORMATS.values() if row.suffix]),
        port="" if port == _FTP_PORT else f":{port}",
        tls=" It takes passwords over TLS only." if is_strict else "",
        curl="--ssl-reqd " if is_strict else "",
        lftp="set ftp:ssl-force true; " if is_strict else "",
        max_upload=_size(config.ftp.max_upload),
        max_image=_size(config.gate.max_image),
        timeout=_duration(config.machine.timeout),
        idle_timeout=_duration(config.machine.idle_timeout),
        cpus="a processor" if cpus == 1 else f"{cpus} processors",
        memory=_size(config.machine.memory),
        max_age=_duration(config.janitor.max_age),
        incoming_age=_duration(config.janitor.incoming_age),
        keys="\n".join(_keys()),
    )


def _keys() -> Iterator[str]:
    """Every key of a job's construir.toml, with an example and what it means."""
    table = ""
    for key in KEYS:
        if key.table != table:
            table = key.table
            yield f"  [{table}]"
        example = f"  {key.name} = {key.example} "
        yield from textwrap.wrap(
            key.meaning, _WIDTH, initial_indent=example.ljust(_KEY_COLUMNS), subsequent_indent=" " * _KEY_COLUMNS
        )


def _any_of(names: Sequence[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} or {last}" if some else last


def _size(size: Size) -> str:
    return next((f"{size / unit:g} {name}" for name, unit in _SIZES if size >= unit), f"{size} bytes")


def _duration(duration: Duration) -> str:
    for name, unit in _DURATIONS:
        if duration >= unit:
            return f"{duration / unit:g} {name}{'s' if duration > unit else ''}"
    return f"{duration:g} seconds"
