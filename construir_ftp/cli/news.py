"""`construir news`: who is told what goes on, by which ways, what waits to be told; and a test of all that."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import click
import msgspec

from construir_ftp.appliance import telling
from construir_ftp.cli.options import as_json_option, configured, print_json, printable
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.ftp.users import Users
from construir_ftp.jobs.spool import Spool
from construir_ftp.news import events, memory
from construir_ftp.news.herald import Plan, kind_of


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What waits to be told to somebody: so many events, the time of the oldest, and when the next message may go."""

    recipient: str
    events: int
    oldest: datetime
    next: datetime


@click.command("news")
@click.option("--test", "is_test", is_flag=True, help="Tell a test to all operators, webhook and command, now.")
@click.option("--to", "addressee", metavar="NAME", help="With --test: tell it to this contributor alone.")
@as_json_option
@configured
def news_command(settings: Config, is_test: bool, addressee: str | None, as_json: bool) -> int:
    """Say who is told what goes on here, by which ways, and what waits to be told.

    What happens is told by the part `news` of construir serve, as [notify] of the configuration says.
    """
    spool = Spool.find(settings.spool_path())
    plan = telling.plan(settings, spool)
    if is_test and as_json:
        raise UsageError("--json doesn't go with --test")
    if is_test:
        return _test(plan, [f"contributor:{addressee}"] if addressee else plan.for_trouble)
    if addressee:
        raise UsageError("--to goes with --test")
    if as_json:
        print_json({"told": _recipients(settings, plan), "waiting": _boxes(spool, plan.most_per_hour)})
        return 0
    for line in [*_told(settings, plan), *_waiting(spool, plan.most_per_hour)]:
        click.echo(printable(line))
    return 0


def _told(settings: Config, plan: Plan) -> Iterable[str]:
    if not settings.notify.tells():
        yield "nobody is told anything: set notify.smtp, notify.webhook or notify.command; see docs/notify.md"
        return
    for recipient in plan.for_trouble:
        also = ", and of the end of every job" if recipient in plan.for_jobs else ""
        yield f"{_words(recipient)}: told when something is wrong here{also}"
    users = Users(settings.users_path())
    for name in users.names() if settings.notify.tells_by_mail() else ():
        mail = users.mail(name)
        yield f"contributor {name}: " + (f"told of their jobs, at {mail}" if mail else "not told: no address is set")


def _recipients(settings: Config, plan: Plan) -> list[dict[str, object]]:
    """Who is told, with what makes them: trouble, every job's end, or their own jobs' ends."""
    every = dict.fromkeys((*plan.for_trouble, *plan.for_jobs))
    told: list[dict[str, object]] = [
        {"recipient": one, "conditions": one in plan.for_trouble, "jobs": one in plan.for_jobs} for one in every
    ]
    users = Users(settings.users_path())
    for name in users.names() if settings.notify.tells_by_mail() else ():
        told.append({"recipient": f"contributor:{name}", "mail": users.mail(name)})
    return told


def _boxes(spool: Spool, most_per_hour: int) -> list[Waiting]:
    now_s = time.time()
    return [
        Waiting(
            recipient=recipient,
            events=len(box.events) + box.left_out,
            oldest=box.events[0].time,
            next=datetime.fromtimestamp(box.next_s(now_s, most_per_hour), UTC),
        )
        for recipient, box in sorted(memory.load(spool.path).boxes.items())
        if box.events
    ]


def _words(recipient: str) -> str:
    return recipient.replace(":", " ", 1)


def _waiting(spool: Spool, most_per_hour: int) -> Iterable[str]:
    for box in _boxes(spool, most_per_hour):
        told = f"waits for {_words(box.recipient)}: {box.events}, the first of {box.oldest:%Y-%m-%d %H:%M} UTC"
        until = f"; this hour has had its messages, the next goes at {box.next:%H:%M} UTC"
        yield told + (until if box.next > datetime.now(UTC) else "")


def _test(plan: Plan, recipients: Iterable[str]) -> int:
    """Tell a test to each; says of each whether that went well, and returns 1 where one did not."""
    told = list(recipients)
    if not told:
        raise UsageError("there is nobody to tell: set notify.operators, notify.webhook or notify.command, or use --to")
    went_well = [_test_one(plan, recipient) for recipient in told]
    return int(not all(went_well))


def _test_one(plan: Plan, recipient: str) -> bool:
    message = events.message((events.test(datetime.now(UTC)),), 0, plan.name)
    carry = plan.carriers.get(kind_of(recipient))
    try:
        if carry is None:
            raise UsageError("there is no way for mail: set notify.smtp or notify.sendmail")
        carry(message, recipient)
    except ConstruirError as error:
        click.echo(printable(f"{_words(recipient)}: not told: {error}"))
        return False
    click.echo(f"{_words(recipient)}: told")
    return True
