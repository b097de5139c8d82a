"""The part "pilots" of `construir serve`: where the configuration has a [slurm], Slurm starts nodes."""

import logging
import select

import click

from construir_ftp import process
from construir_ftp.appliance import supervisor
from construir_ftp.appliance.sd_notify import Manager
from construir_ftp.config import Config
from construir_ftp.jobs.spool import Spool
from construir_ftp.slurm import need
from construir_ftp.slurm.keeper import Keeper

log = logging.getLogger("construir.pilots")

_LOOK_S = 2.0


def serve_pilots(settings: Config, spool: Spool, manager: Manager) -> None:
    """Keep as many as are wanted until told to stop; those that there are go on then."""
    if not settings.slurm.is_used():
        manager.ready()
        log.info("Slurm starts no nodes: slurm.max_pilots of the configuration is 0")
        return
    keeper = Keeper(spool, settings.slurm, _node_command(settings))
    with supervisor.listening() as stop, stop.interrupting():
        log.info("Slurm starts nodes for %s, %d at most", spool.path, settings.slurm.max_pilots)
        manager.ready()
        while not select.select([stop.socket], [], [], min(_LOOK_S, manager.alive_every_s))[0]:
            keeper.look(need.nodes_of(spool))
            manager.alive()


def _node_command(settings: Config) -> list[str]:
    """What starts a node, on whatever computer Slurm chooses, once its name follows."""
    program = settings.slurm.command or process.ourselves()
    config = click.get_current_context().params["config_path"]
    chosen = [f"--config={config.absolute()}"] if config else []
    options = [*chosen, f"--spool={settings.spool_path()}", f"--slots={settings.slurm.jobs_per_pilot}"]
    return [*program, "serve", "node", *options, "--name"]
