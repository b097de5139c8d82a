#!/bin/sh
# Leaves artifacts, and what would like to be some.
mkdir -p out/deep
echo 'not really a package' >out/greet_1.0-1~x+b1_all.deb
printf 'log of %s\n' one >out/test.log
chmod 744 out/test.log
printf 'log of %s\n' two >out/deep/test.log
ln -s /etc/shadow out/shadow.deb
ln -s ../run.sh out/run.deb
mkfifo out/pipe.deb
truncate -s 1T out/huge.deb
echo hostile >"out/$(printf 'new\nline').deb"
echo hostile >"out/$(printf '\033[31mred').deb"
exit 3
