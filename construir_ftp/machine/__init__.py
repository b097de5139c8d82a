"""Virtual machines: one run from its start to its end.

vm starts, feeds, follows and ends a machine; qemu and disks are its command line, qmp its monitor, guest the words
with the inside. template clones machines, accelerator finds what makes them quick, usage and capped_log measure and
record, outcome says what the end means. console and terminal are for people who look in.

It knows no spool. What the guest says is a claim, and decides nothing alone.
"""
