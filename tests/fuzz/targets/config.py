"""The appliance's construir.toml, with what is made of its texts before anything starts."""

from contextlib import suppress

from construir_ftp import config
from construir_ftp.errors import ConfigError
from construir_ftp.ftp import ports
from tests.fuzz.targets import alone, demand_line


def attempt(data: bytes) -> None:
    """A configuration, or one line that says what is wrong."""
    text = data.decode(errors="replace")
    try:
        read = config.parse(text, "construir.toml")
        ports.passive_ports(read.ftp.passive_ports)
        ports.check_masquerade_address(read.ftp.masquerade_address)
    except ConfigError as error:
        demand_line(str(error))
        return
    read.tls.files()
    with suppress(ConfigError):
        read.spool_path(), read.images_path(), read.site_path(), read.users_path()


target = alone(attempt)
