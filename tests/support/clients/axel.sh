#!/bin/sh
# axel: it only fetches, over several connections at once.
set -eu
case $1 in
version) axel --version | head -n 1 ;;
fetch) rm -f "$3"; axel -q -k -T 20 -n 2 -o "$3" "ftp://$FTP_USER:$FTP_PASSWORD@$FTP_HOST:$FTP_PORT/done/$2" 2>&1 ;;
esac
