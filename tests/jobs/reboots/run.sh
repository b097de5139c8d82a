#!/bin/sh
# Restarts the machine, which there is no second start for.
echo "restarting"
sync
exec busybox reboot -f
