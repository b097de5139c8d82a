"""`python -m construir_ftp` is `construir`."""

from construir_ftp.cli.main import main

main()
