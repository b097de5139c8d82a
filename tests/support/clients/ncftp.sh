#!/bin/sh
# ncftp: ncftpput and ncftpget.
set -eu
printf 'host %s\nuser %s\npass %s\n' "$FTP_HOST" "$FTP_USER" "$FTP_PASSWORD" >login.cfg
case $1 in
version) ncftpput --version 2>&1 | grep -o 'NcFTPPut [0-9.]*' | head -n 1 ;;
send) cp "$2" "$3" 2>/dev/null || true; ncftpput -d stdout -f login.cfg -P "$FTP_PORT" queue "$3" 2>&1 ;;
fetch) ncftpget -d stdout -f login.cfg -P "$FTP_PORT" . "/done/$2" 2>&1 && mv "${2##*/}" "$3" ;;
esac
