#!/bin/sh -e
# packages: default-jre-headless
java -version
java --list-modules | grep java.base
