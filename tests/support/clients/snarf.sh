#!/bin/sh
# snarf: it only fetches.
set -eu
case $1 in
version) snarf --version 2>&1 | head -n 1 ;;
fetch) rm -f "$3"; snarf -v "ftp://$FTP_USER:$FTP_PASSWORD@$FTP_HOST:$FTP_PORT/done/$2" "$3" 2>&1 ;;
esac
