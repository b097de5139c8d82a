#!/bin/sh -e
# packages: locales
localedef -i de_DE -f UTF-8 -A /usr/share/locale/locale.alias de_DE.UTF-8
LC_ALL=de_DE.UTF-8 locale -k decimal_point | grep '","'
