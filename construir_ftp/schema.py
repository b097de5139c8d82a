"""A table of a TOML file -> a frozen struct: for the appliance's configuration, and for a job's construir.toml.

An unknown key, a missing unit or an impossible value is a ConfigError of one line that names the file, the key and what
was expected.
"""

import re
import tomllib
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
import msgspec.inspect

from construir_ftp.errors import ConfigError, one_line
from construir_ftp.units import Duration, Size

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table. Of the keys named in `above_zero` a zero is an error."""

    above_zero: ClassVar[tuple[str, ...]] = ()
    # Where whoever wrote the file finds every key there is.
    listed_in: ClassVar[str] = "etc/construir.toml"

    def __post_init__(self) -> None:
        for key in self.above_zero:
            if not getattr(self, key):
                raise ValueError(f"`{key}`: expected more than zero")


S = TypeVar("S", bound=Section)


def parse_section(text: str, source: str, kind: type[S]) -> S:
    """Read TOML that is to be a `kind`; `source` is what errors call it.

    Raises ConfigError, whose message is one printable line whatever the text holds.
    """
    try:
        return convert(tomllib.loads(text), kind)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(one_line(f"{source}: not valid TOML: {error}")) from error
    except msgspec.ValidationError as error:
        raise ConfigError(one_line(f"{source}: {_plainly(str(error), kind)}")) from error


def convert(table: dict[str, Any], kind: type[S]) -> S:
    """A table of plain values -> a Section, sizes and durations with their units. Raises msgspec.ValidationError."""
    return msgspec.convert(table, kind, dec_hook=_decode)


def _decode(kind: type, value: object) -> object:
    if issubclass(kind, Size | Duration):
        return kind.parse(value)
    raise NotImplementedError(kind)


# msgspec's names for what TOML holds, in the words of someone who writes the file.
_PLAIN_KINDS = {
    "int": "a whole number",
    "float": "a number with a point",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _plainly(message: str, kind: type[Section]) -> str:
    """msgspec's "<what> - at `$.a.b`" -> "a.b: <what>", in plain words."""
    what, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    if named := re.fullmatch(r"(Object contains unknown field )?`([^`]*)`(?:: )?(.*)", what):
        key = ".".join(filter(None, [key, named[2]]))
        what = f"no such key; {kind.listed_in} lists them all" if named[1] else named[3]
    elif what.startswith("Invalid enum value"):
        what = f"expected one of {', '.join(_choices(kind, key))}, got {what.split(maxsplit=3)[3]}"
    else:
        what = re.sub(r"`(\w+)`", lambda name: _PLAIN_KINDS.get(name[1], f"a {name[1]}"), what)
    return f"{key}: {what[:1].lower()}{what[1:]}" if key else what


def _choices(kind: type[Section], key: str) -> list[str]:
    """The values that the key at "a.b", or "a.b[0]", can have."""
    shape: msgspec.inspect.Type = msgspec.inspect.type_info(kind)
    for part in re.sub(r"\[.*?\]", ".", key).rstrip(".").split("."):
        if isinstance(shape, msgspec.inspect.StructType):
            shape = next(field.type for field in shape.fields if field.encode_name == part)
    if isinstance(shape, msgspec.inspect.VarTupleType):
        shape = shape.item_type
    return [f'"{value}"' for value in shape.values] if isinstance(shape, msgspec.inspect.LiteralType) else []
