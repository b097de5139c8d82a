"""The commands: the only place that prints, and exits.

main is the group and its catalogue. Each command is in a module that its name says: pack, run, submit, results,
verify, serve, status, nodes, pilots, service, setup, news, top, users, images, layers, manual; init, inspect and unpack
are in pack, watch, cancel and retry in submit, jobs, fetch and diff in results, shell in run, rerun, rebuild and cosign
in again, check and prune in serve, drain, pause, resume and delete in service. panel draws what top shows, disks is
image export and import, trial what tries a new image, kept what stays. trust, options, tables, servers, output, screen,
help_text, group, permission, logs and journal are what they share.
"""
