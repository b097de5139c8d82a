#!/bin/sh
# Prints far more than is kept, on its output and on the console.
echo "first line"
head -c 8M /dev/zero | tr '\0' x
head -c 200000 /dev/zero | tr '\0' y >/dev/console
echo
echo "last line"
