#!/bin/sh -e
# packages: ghc
echo 'main = print (6 * 7)' >a.hs
ghc a.hs && ./a | grep -x 42
