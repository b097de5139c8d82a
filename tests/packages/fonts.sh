#!/bin/sh -e
# packages: fontconfig fonts-dejavu-core
fc-cache --force
fc-match --format '%{family}\n' monospace | grep -x 'DejaVu Sans Mono'
