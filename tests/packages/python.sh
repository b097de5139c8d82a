#!/bin/sh -e
# packages: python3-numpy python3-venv
python3 -c 'import numpy; print(round(numpy.linalg.det([[6, 0], [0, 7]])))' | grep -x 42
python3 -m venv v && v/bin/pip --version
