#!/bin/sh
# Writes over the root disk, its file system and the raw device: the next machine must know nothing of it.
echo "changed by a job" >/usr/bin/changed-by-a-job
echo "wiping"
dd if=/dev/zero of=/dev/vda bs=1M count=64 conv=notrunc 2>/dev/null
sync
