#!/bin/sh
# The program beside it was compiled elsewhere, for this machine.
set -eu
uname -m
./greet arm64 | tee greeting.txt
