"""Every kind of machine, by its accelerator: what starts one of a shape."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from construir_ftp.machine.engine import Engine
from construir_ftp.machine.qemu_engine import QemuEngine
from construir_ftp.machine.shape import Accelerator, Shape
from construir_ftp.machine.uml_engine import UmlEngine

ENGINES: dict[Accelerator, Callable[[Shape], AbstractContextManager[Engine]]] = {
    "kvm": QemuEngine.start,
    "tcg": QemuEngine.start,
    "uml": UmlEngine.start,
}
