"""`construir serve`, `check` and `prune`: the appliance as a whole."""

import contextlib
import functools
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from construir_ftp import process
from construir_ftp.appliance import claim, demands, janitor, lives, supervisor, telling
from construir_ftp.appliance.conditions import Conditions
from construir_ftp.appliance.refresher import Refresher
from construir_ftp.appliance.sd_notify import Manager
from construir_ftp.cli import logs
from construir_ftp.cli.options import (
    as_json_option,
    configured,
    print_gone,
    print_hanging,
    print_json,
    printable,
)
from construir_ftp.cli.pilots import serve_pilots
from construir_ftp.config import Config
from construir_ftp.errors import MissingLibraryError, UsageError
from construir_ftp.ftp.users import Users
from construir_ftp.ftp.vfs import readme
from construir_ftp.jail import privileges
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer
from construir_ftp.news.herald import Herald
from construir_ftp.runner.drain import Stop, Watch
from construir_ftp.runner.runner import Runner
from construir_ftp.site.tree import INDEX

log = logging.getLogger("construir")

_NEWS_EVERY_S = 1.0
# What is being sent has so long when the part is told to stop.
_LAST_WORDS_S = 3.0
# Parts that are started by themselves only.
WEB, NODE = "web", "node"
# So long it waits for the first pages, and looks for them so often.
_PAGES_S, _PAGES_LOOK_S = 10.0, 0.2
_TALLY_S, _JUDGING_S = 5.0, 5.0


@click.command("serve")
@click.argument("part", type=click.Choice((*supervisor.PARTS, NODE, WEB)), required=False)
@click.option("--port", type=click.IntRange(0, 65535), help="FTP port, or that of web; 0 takes any that is free.")
@click.option("--name", help="What the node is called; small letters, digits and -.")
@click.option("--slots", type=click.IntRange(1, 1000), help="Jobs that the node runs at once, instead of runner.slots.")
@click.option("--parent", type=int, hidden=True, help="Pid of the supervisor that started this part.")
@configured
def serve_command(
    settings: Config, part: str | None, port: int | None, name: str | None, slots: int | None, parent: int | None
) -> None:
    """Run the appliance until SIGTERM: FTP server, runner, janitor, pages, news, pilots, or only one PART.

    Two parts are never among them. "web" publishes the pages on site.port where no other web server does; "node" runs
    jobs of an appliance on another computer, by the spool that they share.
    """
    logs.begin(logging.INFO, "%(asctime)s %(name)s: %(message)s")
    if name is not None and part != NODE:
        raise UsageError("--name is for the part node: construir serve node --name NAME")
    if part == WEB:
        _serve_web(settings, port)
        return
    if part == NODE:
        demands.check(settings, "runner")
        # Imported here: it draws tables, too, and no part of an appliance should have to wait for that to load.
        from construir_ftp.cli.nodes import serve_node

        serve_node(settings, name, slots)
        return
    if port is not None:
        settings = msgspec.structs.replace(settings, ftp=msgspec.structs.replace(settings.ftp, port=port))
    if parent is not None:
        privileges.die_with_parent(parent, signal.SIGTERM)
    else:
        demands.check(settings, part)
    spool, manager = Spool.prepare(settings.spool_path()), Manager.of(os.environ)
    if part is None:
        with supervisor.stop_signal() as stop, claim.hold(spool.path, stop) as held:
            # What this command was told, its parts are told too.
            supervisor.supervise(supervisor.wanted(settings), sys.argv[1:], stop, held)
        return
    alone = claim.hold_alone(spool.path, part) if parent is None else contextlib.nullcontext()
    with alone, lives.living(spool.path, part):
        if part == "runner":
            _serve_runner(settings, spool, manager, parent)
        else:
            others = {"ftp": _serve_ftp, "janitor": _serve_janitor, "site": _serve_site, "news": _serve_news}
            {**others, "pilots": serve_pilots}[part](settings, spool, manager)


def _serve_ftp(settings: Config, spool: Spool, manager: Manager) -> None:
    # Imported here: no other command should have to wait for an FTP server to load.
    from construir_ftp.ftp import server

    told, writer = socket.socketpair()
    writer.setblocking(False)
    stop = supervisor.Stop(told, writer)
    ftp = server.open_server(
        spool,
        Users(settings.users_path()),
        settings.ftp,
        settings.tls,
        settings.gate,
        Offer.of(spool, settings, stop.socket),
        settings.spool.min_free,
        functools.partial(readme.text, settings),
    )

    def end() -> None:
        stop.come()
        ftp.stop()

    with supervisor.on_stop(end), told, writer, contextlib.closing(ftp):
        ftp.call_every(manager.alive_every_s, manager.alive)
        ftp.call_every(_TALLY_S, functools.partial(ftp.tell_tally, spool.path))
        ftp.call_every(_JUDGING_S, functools.partial(ftp.tell_judging, spool.path))
        manager.ready()
        ftp.run()


def _serve_runner(settings: Config, spool: Spool, manager: Manager, parent: int | None) -> None:
    def is_orphan() -> bool:
        return parent is not None and os.getppid() != parent

    with supervisor.listening() as stop:
        watch = Watch(manager.ready, manager.alive, manager.alive_every_s, manager.patient)
        Runner(spool, settings).serve(Stop(stop.socket, stop.interrupting, is_orphan), watch)


def _serve_janitor(settings: Config, spool: Spool, manager: Manager) -> None:
    stopped = threading.Event()

    def pass_on() -> None:
        stop.socket.recv(1)
        stopped.set()

    with supervisor.listening() as stop:
        # An Event may not be set from a signal handler: it could have interrupted the one who holds its lock.
        threading.Thread(target=pass_on, daemon=True).start()
        build = _command("image", "build", "--refresh")
        with contextlib.closing(Refresher(settings.images_path(), settings.images.refresh, build)) as refresher:
            limits, min_free = settings.janitor, settings.spool.min_free
            with stop.interrupting():
                manager.ready()
                worker = janitor.Janitor(spool, limits, min_free, settings.layers, refresher.look)
                worker.call_every(manager.alive_every_s, manager.alive)
                worker.run(stopped)


def _serve_news(settings: Config, spool: Spool, manager: Manager) -> None:
    if not settings.notify.tells():
        manager.ready()
        log.info("nobody is told anything: [notify] of the configuration names no way")
        return
    herald, conditions = Herald(spool, telling.plan(settings, spool)), Conditions(spool, settings)
    with supervisor.listening() as stop:
        herald.start()
        log.info("telling what is new in %s", spool.path)
        manager.ready()
        while not select.select([stop.socket], [], [], min(_NEWS_EVERY_S, manager.alive_every_s))[0]:
            herald.look(conditions.look())
            manager.alive()
        herald.close(_LAST_WORDS_S)


def _serve_site(settings: Config, spool: Spool, manager: Manager) -> None:
    # Imported here: no other command should have to wait for templates to load, nor for all that is checked.
    from construir_ftp.appliance import health
    from construir_ftp.site.publisher import Publisher, Told

    os.umask(0o022)  # any web server may read what is published
    with supervisor.listening() as stop:
        told = Told(functools.partial(health.look, settings), functools.partial(lives.crashes, spool.path))
        publisher = Publisher(spool, settings, told)
        with contextlib.closing(publisher):
            log.info("pages in %s; to look at them: construir serve web", settings.site_path())
            manager.ready()
            publisher.run(stop.socket, manager.alive)


def _serve_web(settings: Config, port: int | None) -> None:
    try:
        from construir_ftp.site import server
    except ImportError as error:
        raise MissingLibraryError("construir serve web", "waitress") from error
    address, chosen = settings.site.address, settings.site.port if port is None else port
    manager = Manager.of(os.environ)
    with supervisor.listening() as stop:
        with stop.interrupting():
            _wait_for_pages(settings.site_path())
        with server.listening(settings.site_path(), address, chosen) as web:
            log.info("pages on %s", web.url)
            if not (settings.site_path() / INDEX).exists():
                log.info("there are none in %s yet; they are written by: construir serve", settings.site_path())
            manager.ready()
            web.run(stop.socket, manager.alive, manager.alive_every_s)


def _wait_for_pages(site: Path) -> None:
    """Of an appliance that is just being started there are some soon."""
    if site.is_dir():
        return
    log.info("no pages at %s yet; waiting %.0f s for construir serve to write them", site, _PAGES_S)
    deadline_s = time.monotonic() + _PAGES_S
    while not site.is_dir() and time.monotonic() < deadline_s:
        time.sleep(_PAGES_LOOK_S)


def _command(*words: str) -> list[str]:
    """A command of ours, with the same configuration as this one."""
    given = click.get_current_context().params
    options = {"--config": given["config_path"], "--spool": given["spool"], "--images": given["images"]}
    chosen = [f"{option}={path.absolute()}" for option, path in options.items() if path is not None]
    return process.ourselves(*words, *chosen)


@click.command("check")
@as_json_option
@configured
def check_command(settings: Config, as_json: bool) -> int:
    """Say whether everything the appliance needs is here, and what to do where it isn't."""
    return int(print_findings(settings, as_json=as_json))


def print_findings(settings: Config, *, as_json: bool = False) -> bool:
    """Print what the check finds; whether there is a problem."""
    # Imported here: no part should have to wait for what it takes to look at all of them.
    from construir_ftp.appliance import check

    findings = check.check(settings)
    if as_json:
        print_json(findings)
    for finding in [] if as_json else findings:
        print_hanging(f"{finding.state:<8} ", f"{finding.subject}: {printable(finding.text)}")
        if finding.remedy:
            print_hanging("         -> ", finding.remedy)
    return any(finding.state == "problem" for finding in findings)


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@as_json_option
@configured
def prune_command(settings: Config, dry_run: bool, as_json: bool) -> None:
    """Delete the results that the limits of the configuration no longer allow, once, now."""
    spool = Spool.find(settings.spool_path())
    gone = janitor.prune(spool, settings.janitor, settings.spool.min_free, datetime.now(UTC), dry_run)
    print_gone(((job.id, reason) for job, reason in gone), "delete", dry_run=dry_run, as_json=as_json)
