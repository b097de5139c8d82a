"""Whether Slurm would take a pilot: asked without starting one."""

from pathlib import Path

from construir_ftp.slurm import cluster
from construir_ftp.slurm.order import Order, sbatch_args
from construir_ftp.surroundings import SlurmSection


def look(section: SlurmSection) -> str:
    """In words that it would. Raises ConstruirError, in Slurm's own words, where it would not."""
    sbatch, *options = sbatch_args(section, Order("construir-check", "construir check", Path("/dev/null"), ["true"]))
    cluster.run([sbatch, "--test-only", *options])
    return f"it would take a pilot; {section.max_pilots} at most are asked for"
