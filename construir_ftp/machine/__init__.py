"""Virtual machines: one run from its start to its end.

vm follows a machine: what it says, its deadlines, which are in deadlines, its end. ending is what it is to do, and how
it ended, brake what makes all machines stand still. engine is the seam to the program that is one, engines lists the
kinds. One is qemu_engine: qemu and disks are its command line, qmp its monitor, template clones of it. The other is
uml_engine: uml is its command line, mconsole its monitor, processors says where it runs. waiting is what machines are
made of that wait for a job, rehearsal what they do first. shape is what kind of machine one is, guest the words with
the inside, accelerator chooses the kind, capacity how many there can be, least_memory how small one. usage and
capped_log measure and record, outcome says what the end means. console and terminal are for people who look in.

It knows no spool. What the guest says is a claim, and decides nothing alone.
"""
