"""Who is told what of an appliance, and by which ways: what configuration and users file say, for the herald."""

import socket
from pathlib import Path

from construir_ftp.config import Config
from construir_ftp.errors import ConfigError, ConstruirError
from construir_ftp.ftp.users import Users
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.result import Result
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.news import command, webhook
from construir_ftp.news.delivery import RejectedError, UndeliveredError
from construir_ftp.news.events import Message
from construir_ftp.news.herald import Carry, Plan
from construir_ftp.surroundings import NotifySection

_MOST_SECRET_BYTES = 4096


def plan(config: Config, spool: Spool) -> Plan:
    """All of it. Raises ConfigError where a file that [notify] names can't be read."""
    section, users = config.notify, Users(config.users_path())
    machines = (("webhook", section.webhook), ("command", section.command))
    told = tuple(kind for kind, is_wanted in machines if is_wanted)
    return Plan(
        carriers=_carriers(section, spool, users),
        for_trouble=(*(f"operator:{address}" for address in section.operators), *told),
        for_jobs=told if section.jobs else (),
        reaches=lambda name: _reaches(users, name),
        name=socket.gethostname() or "construir",
        server=section.server,
        most_per_hour=section.max_per_hour,
    )


def _carriers(section: NotifySection, spool: Spool, users: Users) -> dict[str, Carry]:
    carriers: dict[str, Carry] = {}
    if section.tells_by_mail():
        carriers["mail"] = _by_mail(section, users)
    if section.webhook:
        carriers["webhook"] = _by_webhook(section, spool)
    if section.command:
        carriers["command"] = lambda message, _: command.run(section.command, message)
    return carriers


def _by_mail(section: NotifySection, users: Users) -> Carry:
    # Imported here: Python's mail takes long to load, and most appliances send none.
    from construir_ftp.news import mail

    post = mail.post(section, secret("smtp_password_file", section.smtp_password_file))

    def carry(message: Message, recipient: str) -> None:
        kind, _, who = recipient.partition(":")
        post(message, who if kind == "operator" else _address(users, who))

    return carry


def _by_webhook(section: NotifySection, spool: Spool) -> Carry:
    key = secret("webhook_secret_file", section.webhook_secret_file).encode()

    def carry(message: Message, _: str) -> None:
        webhook.send(section.webhook, key, message.id, webhook.body(message, _results(spool, message)))

    return carry


def _results(spool: Spool, message: Message) -> dict[str, Result]:
    """Those of the jobs that a message tells of, as far as they are still there."""
    found = {}
    for event in message.events:
        try:
            found[event.job] = read_result(Job(spool.state("done") / event.job))
        except ConstruirError:
            continue
    return found


def _reaches(users: Users, name: str) -> bool:
    try:
        return bool(users.mail(name))
    except ConfigError:  # a users file that is being edited: the address is asked for again when it is needed
        return True


def _address(users: Users, name: str) -> str:
    try:
        found = users.mail(name)
    except ConfigError as error:
        raise UndeliveredError(str(error)) from error
    if not found:
        raise RejectedError("there is no mail address of theirs in the users file")
    return found


def secret(key: str, path: str) -> str:
    """What is in the file that a key of [notify] names, without the end of its line; nothing if it names none.

    Raises ConfigError.
    """
    if not path:
        return ""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(_MOST_SECRET_BYTES).rstrip("\r\n")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"notify.{key}: {path}: {what}; make it readable for the user of the part news") from error
    if not text:
        raise ConfigError(f"notify.{key}: {path}: it is empty; put the secret into it")
    return text
