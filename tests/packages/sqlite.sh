#!/bin/sh -e
# packages: sqlite3
sqlite3 a.db 'create table t(n); insert into t values(42)'
sqlite3 a.db 'select n from t' | grep -x 42
