"""A sandbox for machines and for whatever reads hostile bytes.

jail, the way in: what can be jailed here, and how. tools are run to their end in one. prisoner is a program in a
jail, seen from outside. cell says what a jail may see and use, bubblewrap makes the walls of it, seccomp the filter,
user_mode that of a user-mode kernel, cgroup and uids what bounds and separates. orphans ends what a killed owner left.
privileges is what a program in a jail gives up by itself. check tells which parts are in force.

It knows nothing of jobs, images or machines, and reads no byte that is not its own.
"""
