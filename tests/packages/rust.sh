#!/bin/sh -e
# packages: rustc
echo 'fn main() { println!("{}", 6 * 7) }' >a.rs
rustc a.rs && ./a | grep -x 42
