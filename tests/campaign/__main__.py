"""python -m tests.campaign [--minutes M | --hours H] [--seed N]: see docs/reliability.md."""

import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.campaign import campaign

# Given to those who run in a mount namespace already.
_INSIDE = "CONSTRUIR_CAMPAIGN"


@click.command()
@click.option("--minutes", type=float, default=2.0, show_default=True, help="How long it is harmed.")
@click.option("--hours", type=float, help="The same in hours.")
@click.option("--seed", default=None, help="What decides all that goes wrong; another one each time unless given.")
@click.option("--acts", type=click.IntRange(1), help="How often it is harmed at most.")
@click.option("--senders", type=click.IntRange(1, 99), default=30, show_default=True, help="How many contributors.")
@click.option("--keep", is_flag=True, help="Leave the directory with ledger and logs behind.")
def main(minutes: float, hours: float | None, acts: int | None, seed: str | None, senders: int, keep: bool) -> None:
    """Harm a whole appliance for some time, and tell whether it kept its promises."""
    if os.geteuid() != 0:
        raise click.UsageError("only root can mount the disk whose power is cut; run it as root")
    if _INSIDE not in os.environ:
        argv = ["unshare", "--mount", "--propagation=private", sys.executable, "-m", "tests.campaign", *sys.argv[1:]]
        sys.exit(subprocess.run(argv, env={**os.environ, _INSIDE: "1"}, check=False).returncode)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    campaign.log.setLevel(logging.INFO)
    duration_s = hours * 3600 if hours is not None else minutes * 60
    seed = seed or str(secrets.randbelow(10**6))
    place = Path(tempfile.mkdtemp(prefix="campaign-"))
    account = campaign.run(place, seed, campaign.Length(duration_s, acts, senders))
    print(account.text())
    if keep or account.broken:
        print(f"campaign: ledger and logs are in {place}")
    else:
        shutil.rmtree(place)
    sys.exit(bool(account.broken))


main()
