#!/bin/sh
# libwww-perl: lwp-request, which speaks FTP by Net::FTP.
set -eu
place=ftp://$FTP_USER:$FTP_PASSWORD@$FTP_HOST:$FTP_PORT
case $1 in
version) perl -MLWP -e 'print "libwww-perl $LWP::VERSION\n"' ;;
send) lwp-request -s -m PUT -c application/octet-stream "$place/queue/$3" <"$2" 2>&1 ;;
fetch) lwp-request -m GET "$place/done/$2" >"$3" ;;
esac
