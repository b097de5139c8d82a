"""Dependencies of jobs: resolved, built, published, kept.

resolver says what a job asks for can be had. apt finds the packages, in an apt_directory, build installs them in a
machine, and progress says how far that is, squashfs packs the layer, marks says what of it not every machine could
read, store keeps it, publish makes one of a result, gc removes what nothing needs. Whoever waits does so as waiting
says.

Packages run as root, in a machine only. No layer changes once it is in the store.
"""
