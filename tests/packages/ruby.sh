#!/bin/sh -e
# packages: ruby
echo 'require "json"; puts JSON["[42]"][0]' >a.rb
ruby a.rb | grep -x 42
