#!/bin/sh -e
# packages: gnuplot-nox fonts-dejavu-core
gnuplot -e 'set terminal png; set output "a.png"; plot sin(x)'
file a.png | grep 'PNG image data'
