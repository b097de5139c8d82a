#!/bin/sh -e
# packages: nodejs
echo 'console.log(6 * 7)' >a.js
node a.js | grep -x 42
