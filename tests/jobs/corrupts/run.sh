#!/bin/sh
# Writes rubbish over its own file system while it is mounted.
echo "corrupting"
disk=$(findmnt --noheadings --output SOURCE /job 2>/dev/null || sed -n 's|^\(/dev/[^ ]*\) /job .*|\1|p' /proc/mounts)
dd if=/dev/urandom of="$disk" bs=64k count=4 conv=notrunc 2>/dev/null
sync
exit 0
