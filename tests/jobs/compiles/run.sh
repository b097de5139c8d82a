#!/bin/sh
# Compiles a C program from its source; needs a base image with gcc, libc6-dev and make.
set -eu
make greet
./greet inside
