#!/bin/sh -e
# packages: golang-go
echo 'package main; func main() { println(42) }' >a.go
GO111MODULE=off go run a.go 2>&1 | grep -x 42
