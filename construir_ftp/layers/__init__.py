"""Layers: read-only squashfs images that are laid over a machine's root, made of Debian packages or published."""
