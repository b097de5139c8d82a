#!/bin/sh
# tnftp, Debian's ftp: commands on its standard input. It goes on whatever fails, so what it says is looked at.
set -eu
client() {
    printf 'user %s %s\nbinary\n%s\nquit\n' "$FTP_USER" "$FTP_PASSWORD" "$1" | tnftp -n -v -P "$FTP_PORT" "$FTP_HOST" 2>&1
}
case $1 in
version) dpkg-query -W -f 'tnftp ${Version}\n' tnftp ;;
send) client "cd queue
put $2 $3" | tee said && grep -q '^226' said ;;
continue)
    kept=$(client "cd queue
size $3" | sed -n 's/^.*\t\([0-9][0-9]*\)$/\1/p')
    client "cd queue
restart ${kept:-0}
put $2 $3" | tee said && grep -q '^226' said ;;
fetch) client "get done/$2 $3" | tee said && grep -q '^226' said ;;
esac
