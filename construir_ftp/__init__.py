"""Construir: an open build appliance. Jobs go in by FTP, run in a virtual machine, come back from done/."""

__version__ = "0.2.0"
