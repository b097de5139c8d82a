#!/bin/sh -e
# packages: qtbase5-dev g++ make
printf '#include <QCoreApplication>\nint main() { qInfo("%%s", qVersion()); }\n' >a.cpp
printf 'SOURCES = a.cpp\nQT = core\n' >a.pro
qmake a.pro && make && ./a 2>&1 | grep '^5'
