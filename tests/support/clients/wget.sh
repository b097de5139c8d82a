#!/bin/sh
# wget: it only fetches.
set -eu
case $1 in
version) wget --version | head -n 1 ;;
fetch)
    wget -nv --ca-certificate="$FTP_CA" --user="$FTP_USER" --password="$FTP_PASSWORD" -O "$3" \
        "ftp${FTP_TLS:+s}://$FTP_HOST:$FTP_PORT/done/$2" 2>&1 ;;
esac
