#!/bin/sh -e
# packages: ocaml-nox gcc libc6-dev
echo 'print_int 42;; print_newline ()' >a.ml
ocamlopt -o a.out a.ml && ./a.out | grep -x 42
