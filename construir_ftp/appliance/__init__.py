"""The daemon as a whole: supervisor, janitor, refresher, check.

supervisor keeps the three parts running, claim says who is the appliance of a spool, janitor prunes by the schedule of
clock, refresher builds base images anew, demands is what a start needs, check says what is missing here.

It reads no job, and holds no lock of the spool.
"""
