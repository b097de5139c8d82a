#!/bin/sh
# rclone: a remote made of environment variables. SSL_CERT_FILE is Go's own.
set -eu
RCLONE_FTP_PASS=$(rclone obscure "$FTP_PASSWORD")
export RCLONE_FTP_PASS RCLONE_FTP_HOST="$FTP_HOST" RCLONE_FTP_PORT="$FTP_PORT" RCLONE_FTP_USER="$FTP_USER"
export RCLONE_FTP_EXPLICIT_TLS="${FTP_TLS:+true}" SSL_CERT_FILE="$FTP_CA"
[ -n "$FTP_TLS" ] || unset RCLONE_FTP_EXPLICIT_TLS
client() { rclone --config '' -vv --retries 1 --low-level-retries 1 "$@" 2>&1; }
case $1 in
version) rclone version | head -n 1 ;;
send) client copyto "$2" ":ftp:queue/$3" ;;
fetch) client copyto ":ftp:done/$2" "$3" ;;
esac
