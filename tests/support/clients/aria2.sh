#!/bin/sh
# aria2: it only fetches.
set -eu
case $1 in
version) aria2c --version | head -n 1 ;;
fetch)
    aria2c --no-conf --max-tries=1 --timeout=20 --allow-overwrite=true --ftp-user="$FTP_USER" --ftp-passwd="$FTP_PASSWORD" \
        -o "$3" "ftp://$FTP_HOST:$FTP_PORT/done/$2" 2>&1 ;;
esac
