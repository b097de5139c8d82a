#!/bin/sh -e
# packages: cmake gcc libc6-dev make
echo 'int main(void) { return 0; }' >hello.c
printf 'cmake_minimum_required(VERSION 3.10)\nproject(a C)\nadd_executable(hello hello.c)\n' >CMakeLists.txt
cmake -B b && cmake --build b && b/hello
