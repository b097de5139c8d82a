#!/bin/sh
# shellcheck disable=SC2086 # options are words
# curl: by its options alone.
set -eu
tls=
[ -z "$FTP_TLS" ] || tls="--ssl-reqd --cacert $FTP_CA"
client() { curl -sSv $tls --user "$FTP_USER:$FTP_PASSWORD" "$@" 2>&1; }
address=ftp://$FTP_HOST:$FTP_PORT
case $1 in
version) curl --version | head -n 1 | cut -d ' ' -f 1-2 ;;
send) client -T "$2" "$address/queue/$3" ;;
continue) client -C - -T "$2" "$address/queue/$3" ;;
fetch) client -o "$3" "$address/done/$2" ;;
esac
