"""The daemon as a whole: supervisor, janitor, refresher, check.

supervisor keeps the parts running, claim says who is the appliance of a spool, listeners whose a port is, lives how
often a part came to a bad end, janitor prunes by the schedule of clock, refresher builds base images anew, sd_notify
tells the service manager how a part is ([notify] is of news), demands is what a start needs. check says what is
missing here: a finding of each thing, health what of that anyone is told, completeness whether all of this program is
there, exposure whether others can listen, shared_spool whether the spool's file system will do for nodes. conditions
is what operators are told is not well, telling who is told what.

It reads no job, and holds no lock of the spool.
"""
