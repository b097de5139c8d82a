"""The commands: what each does, what HELP says of it, who may say it. A new command is one function and one row."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pyftpdlib.handlers import FTPHandler

from construir_ftp.ftp.commands import access, connections, files, listing, site, store
from construir_ftp.ftp.session import Session
from construir_ftp.jobs.reply import Reply


class Command(NamedTuple):
    """`handler` is None for what pyftpdlib does itself. With `help` the row stands for pyftpdlib's own as a whole; its
    argument is then needed (True), not allowed (False), or either (None). `needs_data`: it goes over a data connection,
    which has to be there, or to come. `is_hidden`: neither HELP nor FEAT tell of it.
    """

    handler: Callable[[Session, str], Reply | None] | None
    help: str = ""
    needs_login: bool = True
    argument: bool | None = True
    needs_data: bool = False
    is_hidden: bool = False


COMMANDS = {
    "USER": Command(access.user),
    "PASS": Command(access.password),
    "REIN": Command(access.rein),
    "AUTH": Command(access.auth, "AUTH <SP> TLS (protect this connection)", needs_login=False),
    "PBSZ": Command(access.pbsz, "PBSZ <SP> 0 (comes before PROT)", needs_login=False),
    "PROT": Command(access.prot, "PROT <SP> C|P (data in clear, or protected)", needs_login=False),
    "QUIT": Command(connections.quit_),
    "NOOP": Command(connections.noop),
    "PASV": Command(connections.pasv),
    "EPSV": Command(connections.epsv),
    "TYPE": Command(connections.type_),
    "ABOR": Command(connections.abor),
    "RETR": Command(None, needs_data=True),
    "LIST": Command(
        listing.list_, "LIST [<SP> path] (list files; the last name may have * and ?)", argument=None, needs_data=True
    ),
    "NLST": Command(
        listing.nlst, "NLST [<SP> path] (list names; the last one may have * and ?)", argument=None, needs_data=True
    ),
    "MLSD": Command(listing.mlsd, needs_data=True),
    "STAT": Command(
        connections.stat_,
        "STAT [<SP> path] (how the session is; what LIST would say)",
        needs_login=False,
        argument=None,
    ),
    "ALLO": Command(store.allo, "ALLO <SP> bytes (how large the next upload is)"),
    "STOR": Command(store.stor, "STOR <SP> file-name (send a job)", needs_data=True),
    "APPE": Command(store.appe, "APPE <SP> file-name (continue an upload)", needs_data=True),
    # MODE S and STRU F of RFC 959 are all there is; STOU would choose a name, and a job has the one it is sent under.
    "STOU": Command(store.stou, is_hidden=True),
    "DELE": Command(files.dele, "DELE <SP> file-name (delete an upload, cancel a job)"),
    "RNFR": Command(files.rnfr, "RNFR <SP> file-name (rename what has a temporary name)"),
    "RNTO": Command(files.rnto, "RNTO <SP> file-name (and so make it a job)"),
    "MKD": Command(files.mkd, "MKD <SP> path (another name for /queue)"),
    "XMKD": Command(files.mkd, "XMKD <SP> path (another name for /queue)"),
    "RMD": Command(files.rmd, "RMD <SP> path (remove what MKD made)"),
    "XRMD": Command(files.rmd, "XRMD <SP> path (remove what MKD made)"),
    "SIZE": Command(files.size),
    "MDTM": Command(files.mdtm, "MDTM <SP> file-name (when it was last changed)"),
    # FEAT would tell clients to use it, and they would fail, since it does nothing.
    "MFMT": Command(files.mfmt, is_hidden=True),
    "SITE CHMOD": Command(files.site_chmod, "SITE CHMOD <SP> mode path (noop)"),
    "SITE UTIME": Command(files.site_utime, "SITE UTIME <SP> time path (noop)"),
    "SITE HELP": Command(site.site_help, "SITE HELP (how to make and send a job)", argument=None),
    "SITE QUEUE": Command(site.site_queue, "SITE QUEUE (what waits and why, what runs)", argument=None),
    "SITE STATUS": Command(site.site_status, "SITE STATUS <SP> id (where a job is)"),
}


class Table:
    """The rows above, and pyftpdlib's for all that has none. `offered` is all of it in pyftpdlib's way."""

    def __init__(self) -> None:
        self.offered: dict[str, dict[str, Any]] = {
            name: row
            for name, row in FTPHandler.proto_cmds.items()
            if not (name in COMMANDS and COMMANDS[name].is_hidden)
        }
        self.offered |= {name: _row(command) for name, command in COMMANDS.items() if command.help}

    def find(self, name: str) -> Command | None:
        """The row of a command; None where all of it is pyftpdlib's."""
        return COMMANDS.get(name)

    def unknown_site(self, argument: str) -> Reply | None:
        """What to reply to a SITE command that there is none of; None if there is one."""
        name = f"SITE {argument.split(' ')[0].upper()}"
        # The last three are obeyed whatever is before them: see pyftpdlib's pre_process_command.
        if not argument or name in self.offered or name.endswith(("ABOR", "STAT", "QUIT")):
            return None
        return Reply(500, f'Command "{name}" not understood; there are SITE QUEUE, SITE STATUS ID, SITE HELP.')


def _row(command: Command) -> dict[str, Any]:
    # With a perm pyftpdlib would look at the path before we do.
    return {"perm": None, "auth": command.needs_login, "arg": command.argument, "help": f"Syntax: {command.help}."}
