"""What a new base image is tried with before it goes live."""

from collections.abc import Callable

from construir_ftp.appliance import supervisor
from construir_ftp.config import Config
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine import least_memory
from construir_ftp.runner import local


def of(settings: Config, *, skip: bool = False) -> Callable[[BaseImage], None]:
    """A job in a machine of it, or nothing. What is returned raises ConstruirError where that does not succeed."""

    def run(base: BaseImage) -> None:
        if skip:
            return
        with supervisor.stop_signal() as stop:
            local.self_test(base, settings, stop)

    return run


def memory_of(settings: Config) -> Callable[[BaseImage], int]:
    """How many bytes of memory a machine of it needs to come up."""
    return lambda base: least_memory.measure(settings.machine, settings.images_path(), base)
