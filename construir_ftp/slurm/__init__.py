"""Pilots: nodes that Slurm starts, as many as waiting jobs want.

cluster has Slurm's commands and what they answer, order what one is asked for, ledger what was asked for and became of
it, need how many are wanted, trouble what keeps more from being started, logs what they have written, trial whether
Slurm would take one. keeper is the part that does all this.

Slurm knows pilots, and no job of a contributor. Nothing here takes or moves a job.
"""
