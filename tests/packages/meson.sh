#!/bin/sh -e
# packages: meson gcc libc6-dev
echo 'int main(void) { return 0; }' >hello.c
printf "project('a', 'c')\nexecutable('hello', 'hello.c')\n" >meson.build
meson setup b && ninja -C b && b/hello
