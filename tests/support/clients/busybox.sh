#!/bin/sh
# busybox: ftpput and ftpget.
set -eu
client() { program=$1; shift; busybox "$program" -v -u "$FTP_USER" -p "$FTP_PASSWORD" -P "$FTP_PORT" "$FTP_HOST" "$@" 2>&1; }
case $1 in
version) busybox | head -n 1 ;;
send) client ftpput "queue/$3" "$2" ;;
fetch) client ftpget "$3" "done/$2" ;;
esac
