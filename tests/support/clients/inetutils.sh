#!/bin/sh
# GNU inetutils' ftp: commands on its standard input. It goes on whatever fails, so what it says is looked at.
set -eu
client() {
    printf 'user %s %s\npassive\nbinary\n%s\nquit\n' "$FTP_USER" "$FTP_PASSWORD" "$1" |
        inetutils-ftp -n -v "$FTP_HOST" "$FTP_PORT" 2>&1
}
case $1 in
version) inetutils-ftp --version | head -n 1 ;;
send) client "put $2 queue/$3" | tee said && grep -q '^226' said ;;
continue)
    kept=$(client "size queue/$3" | sed -n 's/^213 //p')
    client "restart $kept
put $2 queue/$3" | tee said && grep -q '^226' said ;;
fetch) client "get done/$2 $3" | tee said && grep -q '^226' said ;;
esac
