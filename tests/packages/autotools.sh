#!/bin/sh -e
# packages: autoconf automake libtool gcc libc6-dev make
echo 'int main(void) { return 0; }' >hello.c && echo 'bin_PROGRAMS = hello' >Makefile.am
printf 'AC_INIT(a,1)\nAM_INIT_AUTOMAKE([foreign])\nAC_PROG_CC\nAC_CONFIG_FILES(Makefile)\nAC_OUTPUT\n' >configure.ac
autoreconf -i && ./configure -q && make && ./hello
