#!/bin/sh
# Fills its own disk and then the root disk, and says so.
dd if=/dev/urandom of=/job/full bs=64k 2>/dev/null
echo "job disk full: $(df --output=avail /job | tail -n 1 | tr -d ' ') KiB left"
rm /job/full
fallocate -l 64G /full 2>/dev/null || head -c 64M /dev/zero >/full
echo "root disk written"
