#!/bin/sh -e
# packages: git
git init -q . && chown -R 1234:1234 .
git status --short | grep run.sh
