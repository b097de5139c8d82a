#!/bin/sh
# Looks for a way out: there is no interface but lo, no route, and nothing answers.
echo "interfaces: $(find /sys/class/net -mindepth 1 -printf "%f ")"
echo "routes: $(($(wc -l </proc/net/route) - 1))"
if timeout 5 busybox nc -w 2 192.0.2.1 80 </dev/null 2>&1; then echo "connected"; else echo "no way out"; fi
