#!/bin/sh
# Never ends: killed at the deadline, and what it had written by then is kept.
echo "hanging"
echo kept >before-hanging.txt
sync
exec sleep 100000
