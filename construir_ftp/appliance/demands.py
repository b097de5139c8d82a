"""What `construir serve` demands before it starts: one list, for it and for `construir check`.

A demand looks, and changes nothing. What of the configuration is impossible on this host belongs here, so that the
check passes nothing that is refused later.
"""

from collections.abc import Callable
from typing import NamedTuple

from construir_ftp.appliance import claim, listeners, telling
from construir_ftp.config import Config
from construir_ftp.errors import ConfigError
from construir_ftp.ftp import certificate, ports
from construir_ftp.ftp.users import Users
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail import jail
from construir_ftp.machine import capacity


class Demand(NamedTuple):
    """Something that has to be so. `look` says in words how it is, with nothing where nothing is demanded; it raises
    ConstruirError or OSError where it is not so. `parts` are those of the appliance that demand it. `advise` says what
    to change where all is so, and yet not well; usually nothing.
    """

    subject: str
    look: Callable[[Config], str]
    parts: tuple[str, ...]
    advise: Callable[[Config], str] = lambda _: ""


def _memory(config: Config) -> str:
    return capacity.check(config.machine)


def _smaller_machines(config: Config) -> str:
    most = capacity.slots(config.machine)
    advice = [capacity.processors_short(config.machine)]
    if config.runner.slots > most:
        advice.append(f"runner.slots is {config.runner.slots}; this host has processors and memory for {most}")
    return "; ".join(filter(None, advice))


def _users(config: Config) -> str:
    path = config.users_path()
    if config.ftp.users and not path.exists():
        raise ConfigError(f"ftp.users: {path} is not there; make it with: construir user add NAME")
    count = len(Users(path).names())
    return f"{path}: {count} contributor{'' if count == 1 else 's'}"


def _passive_ports(config: Config) -> str:
    found = ports.passive_ports(config.ftp.passive_ports)
    return f"{len(found)}, for up to {config.ftp.max_sessions} sessions" if found else "any that is free"


def _more_ports(config: Config) -> str:
    found = ports.passive_ports(config.ftp.passive_ports)
    if not found or len(found) >= config.ftp.max_sessions:
        return ""
    return "have a port for each session (ftp.max_sessions): one that finds none has to try again"


def _masquerade_address(config: Config) -> str:
    ports.check_masquerade_address(config.ftp.masquerade_address)
    return config.ftp.masquerade_address


def _certificate(config: Config) -> str:
    pair = config.tls.files()
    if pair is None:
        return ""
    certificate.load(*pair)
    return f"{pair[0]} can be used"


def _jail(config: Config) -> str:
    if not config.jail.require_jail:
        return ""
    jailcheck.demand(jail.host())
    return "all of its parts that are required are in force"


def _news(config: Config) -> str:
    """The files that [notify] names, and the ways it has."""
    section = config.notify
    telling.secret("smtp_password_file", section.smtp_password_file)
    telling.secret("webhook_secret_file", section.webhook_secret_file)
    ways = [section.smtp or section.sendmail, section.webhook and "a webhook", *section.command[:1]]
    return f"told by {', '.join(filter(None, ways))}; try it with: construir news --test" if section.tells() else ""


def _ports(config: Config) -> str:
    spool, wanted = config.spool_path(), ports.wanted(config.ftp, config.tls)
    pid = claim.holder(spool) or claim.holder(spool, "ftp")
    others = {port: chosen_by for port, chosen_by in wanted.items() if not (pid and listeners.has(pid, port))}
    ports.check_free(config.ftp.address, others)
    runs = f"the appliance that runs here, process {pid}, has"
    if not others:
        return f"{runs} them"
    free = ", ".join(str(port or "any") for port in sorted(others))
    return f"{config.ftp.address} port {free} is free" + (f"; {runs} others until it is started again" if pid else "")


DEMANDS = (
    Demand("memory", _memory, ("runner",), _smaller_machines),
    Demand("users file", _users, ("ftp",)),
    Demand("passive ports", _passive_ports, ("ftp",), _more_ports),
    Demand("masquerade address", _masquerade_address, ("ftp",)),
    Demand("certificate and key", _certificate, ("ftp",)),
    Demand("required jail", _jail, ("ftp", "runner")),
    Demand("news", _news, ("news",)),
    Demand("port", _ports, ()),  # whoever listens finds that out by itself, and without a race
)


def check(config: Config, part: str | None) -> None:
    """Raises what the first demand raises that is not met, of those of a part; of all parts if it is None."""
    for demand in DEMANDS:
        if demand.parts and part in (None, *demand.parts):
            demand.look(config)
