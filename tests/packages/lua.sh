#!/bin/sh -e
# packages: lua5.4
echo 'print(6 * 7)' >a.lua
lua5.4 a.lua | grep -x 42
