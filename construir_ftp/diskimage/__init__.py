"""Reading strangers' disk images, without mounting them.

stream decodes within bounds, in the process, by members, one after another; codec by programs, in a jail. replay reads
any part of an upload again. other_kinds names what is no file system, and the command that helps. superblock tells file
systems by their head; extfs reads ext images, by ext_superblock, ext_features, ext_inodes, ext_blocks and
ext_directory. paths follows a path in them, tree walks them, compare tells two apart. newest finds the time of the
newest file while an image comes by. e2fsprogs has e2fsck and resize2fs work in a jail.

Every byte here is hostile. Nothing is mounted, and no path in an image becomes a path of the host.
"""
