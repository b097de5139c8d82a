#!/bin/sh
# The smallest job worth sending: says something, leaves something.
echo "hello from $(uname -sr), as $(id -un) in $(pwd)"
date -u >made-by-run.txt
