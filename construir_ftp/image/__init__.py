"""Base images: built, imported, versioned, exported.

baseimage is one image, versions and gc are those there are. recipe, build, rootdisk, kernel, drivers, initramfs and
emulation make one, uml its user-mode kernel, past one that was there before; importer and foreign make one of a
Debian that somebody else made; bootdisk and export make a disk that boots by itself. diff says why two are not the
same.

A version never changes once it is there. Nothing here runs a job.
"""
