#!/bin/sh -e
# packages: r-base-core
printf '%s\n' 'cat(6 * 7, "\n")' >a.r
Rscript a.r | grep 42
