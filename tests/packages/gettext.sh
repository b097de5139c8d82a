#!/bin/sh -e
# packages: gettext
printf 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\nmsgid "yes"\nmsgstr "ja"\n' >a.po
msgfmt --statistics a.po 2>&1 | grep '1 translated message'
