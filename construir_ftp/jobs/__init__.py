"""What a job is, says and leaves, and its states in the spool.

names, request (construir.toml) and outputs are what a job says; result is what comes of it, sums its digests,
portable_names those that its files may have. spool and job are its states on the disk, places where it is in one,
claims what a node holds, spool_format their form, modes who may look into them, ipc the lock and the datagram,
fair_share whose turn it is, cancellation the wish for a job's end, service what the operator has decided of them all,
nodes who runs them, pilots which of those Slurm was asked for, disk_space who may have how much, references what jobs
still need. status is what people are told of all that, inquiry finds it out, board has it as lines for a screen,
spool_board those of a spool, reply is the server's words for it, tally what monitors are told of uploads.
judging says why no upload can be checked. source_package is what the description of a Debian source says, and the job
that builds it.

It runs no job and opens no image. Only spool and claims move a job from one state to another.
"""
