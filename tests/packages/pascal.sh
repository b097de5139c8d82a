#!/bin/sh -e
# packages: fp-compiler
echo 'begin writeln(6 * 7) end.' >a.pas
fpc -v0 a.pas && ./a | grep -x 42
