#!/bin/sh -e
# packages: postgresql
pg_ctlcluster "$(pg_lsclusters -h | awk '{ print $1 }')" main start || { cat /var/log/postgresql/*; exit 1; }
su postgres -c "psql -Atc 'select 6 * 7'" | grep -x 42
