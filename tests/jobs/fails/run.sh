#!/bin/sh
# Ends with a status of its own.
echo "about to fail" >&2
exit 3
