#!/bin/sh
# lftp: its own commands.
set -eu
secure='set ftp:ssl-allow false'
[ -z "$FTP_TLS" ] || secure="set ftp:ssl-force true; set ftp:ssl-protect-data true; set ssl:ca-file $FTP_CA"
client() {
    lftp -c "set net:max-retries 1; set cmd:fail-exit true; $secure; debug 9
        open -u $FTP_USER,$FTP_PASSWORD -p $FTP_PORT $FTP_HOST; $1" 2>&1
}
case $1 in
version) lftp --version | head -n 1 | cut -d ' ' -f 1,4 ;;
send) client "put -O queue $2 -o $3" ;;
continue) client "put -c -O queue $2 -o $3" ;;
fetch) client "get done/$2 -o $3" ;;
esac
