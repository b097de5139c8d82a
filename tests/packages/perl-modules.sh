#!/bin/sh -e
# packages: libjson-xs-perl libwww-perl
printf '%s\n' 'use JSON::XS; use LWP::UserAgent; print encode_json([42]), "\n"' >a.pl
perl a.pl | grep -x '\[42\]'
