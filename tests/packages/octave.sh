#!/bin/sh -e
# packages: octave
echo 'disp(det([6 0; 0 7]))' >a.m
octave-cli a.m | grep -x 42
