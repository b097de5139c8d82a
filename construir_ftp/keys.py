"""Every key of a job's construir.toml, said once for all who explain them: construir init, construir.toml(5)."""

from typing import NamedTuple


class Key(NamedTuple):
    """A key: in which table, an example as TOML has it, and what it means."""

    table: str
    name: str
    example: str
    meaning: str


KEYS = (
    Key("", "name", '"hello"', "What the result is called; unless given, what the uploaded file is called."),
    Key("", "run", '"./run.sh"', "The program to run, as root, in /job; ./run.sh unless given."),
    Key("", "base", '"bookworm-amd64"', "The base image to run on, one of the appliance's; unless given, its default."),
    Key("", "timeout", '"30m"', "The machine is killed after so long; at most the appliance's own limit."),
    Key("", "idle_timeout", '"10m"', "The machine is killed when nothing has been printed for so long."),
    Key("", "cpus", "2", "Processors of the machine."),
    Key("", "memory", '"2GiB"', "Memory of the machine."),
    Key("", "space", '"500MiB"', "Before the run the image grows until so much of it is free."),
    Key("", "outputs", '["out/*.deb"]', "Files that are put into the result as files of their own."),
    Key("env", "CFLAGS", '"-O2"', "Any variable: the environment of the program."),
    Key("dependencies", "packages", '["gcc", "libc6-dev"]', "Packages of the base image's Debian, to be installed."),
    Key("dependencies", "results", '["ID"]', "Earlier jobs, whose disks are to be read at /deps/NAME."),
    Key("dependencies", "layers", '["ghc-9.8"]', "Layers that the appliance's operator has published."),
)
