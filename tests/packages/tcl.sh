#!/bin/sh -e
# packages: tcl
echo 'puts [expr 6 * 7]' >a.tcl
tclsh a.tcl | grep -x 42
