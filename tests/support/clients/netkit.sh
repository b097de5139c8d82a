#!/bin/sh
# shellcheck disable=SC2086 # options are words
# ftp-ssl, the ftp of Linux NetKit with TLS: commands on its standard input.
set -eu
secure='-z nossl'
[ -z "$FTP_TLS" ] || secure="-z secure -z cacert=$FTP_CA -z verify=1"
client() {
    printf 'user %s %s\npassive\nbinary\n%s\nquit\n' "$FTP_USER" "$FTP_PASSWORD" "$1" |
        ftp-ssl -n -v $secure "$FTP_HOST" "$FTP_PORT" 2>&1
}
case $1 in
version) dpkg-query -W -f 'ftp-ssl ${Version}\n' ftp-ssl ;;
send) client "put $2 queue/$3" | tee said && grep -q '^226' said ;;
continue)
    kept=$(client "size queue/$3" | sed -n 's/^213 //p')
    client "restart $kept
put $2 queue/$3" | tee said && grep -q '^226' said ;;
fetch) client "get done/$2 $3" | tee said && grep -q '^226' said ;;
esac
