"""Modes of files and directories in the spool: until a job is done no other login of the host may look into it.

A result is for all. They are set, not asked for, so that no umask changes them.
"""

OURS, OURS_DIRECTORY = 0o600, 0o700
EVERYONES, EVERYONES_DIRECTORY = 0o644, 0o755
