"""Reading strangers' disk images, without mounting them.

stream decodes within bounds, in the process; codec by programs, in a jail. superblock and extfs read file systems,
tree walks them, compare tells two apart. e2fsprogs has e2fsck and resize2fs work in a jail.

Every byte here is hostile. Nothing is mounted, and no path in an image becomes a path of the host.
"""
