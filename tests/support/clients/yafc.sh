#!/bin/sh
# yafc: commands on its standard input.
set -eu
client() { printf '%s\nexit\n' "$1" | yafc -d -v "ftp://$FTP_USER:$FTP_PASSWORD@$FTP_HOST:$FTP_PORT" 2>&1; }
case $1 in
version) yafc --version | head -n 1 ;;
send) client "put -o queue/$3 $2" | tee said && grep -q '226 Accepted' said ;;
continue) client "put -R -o queue/$3 $2" | tee said && grep -q '226 Accepted' said ;;
fetch) client "get -o $3 done/$2" ;;
esac
