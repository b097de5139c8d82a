"""A directory to a job image and back, on any system.

pack is the whole way: selection says which files, staging copies them, filesystem makes the image, compression packs
it. detect writes the first run.sh of a project, unpack makes a directory of an image, inspect says what a server
would.

It works wherever Python does: nothing here needs Linux, a jail or root to be imported.
"""
