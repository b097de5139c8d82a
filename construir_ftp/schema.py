"""A table of a TOML file -> a frozen struct: for the appliance's configuration, and for a job's construir.toml.

An unknown key, a missing unit or an impossible value is a ConfigError of one line that names the file, and each such
key with what was expected.
"""

import difflib
import itertools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, overload

import msgspec
import msgspec.inspect

from construir_ftp.errors import ConfigError, one_line
from construir_ftp.units import Duration, Hours, Size, is_mail_address

# A C int, which is what most system calls take.
_MOST = 2**31 - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

# int() takes 4300 digits, and str() gives no more (Python's "Integer string conversion length limitation").
_MANY_DIGITS = re.compile(r"[0-9][0-9_]{4000,}")
# No integer of TOML's has more than 64 bits; what has more, has so many.
_BEYOND = 2**64
# A key of thousands of parts costs tomllib a time that grows with their square, until it is too deep; none of ours has
# more than two. Parts are counted by the dots of a line outside of strings and comments.
_MOST_DOTS = 100
_STRINGS = re.compile(
    r"""
    \#[^\n]*
    | \"{3} (?: [^"\\] | \\. | "{1,2}(?!") )*+ (?: "{3,5} )?
    | '{3} (?: [^'] | '{1,2}(?!') )*+ (?: '{3,5} )?
    | " (?: [^"\\\n] | \\[^\n] )*+ "?
    | ' [^'\n]*+ '?
    """,
    re.VERBOSE | re.DOTALL,
)
# A message is a line that an FTP reply or a terminal can show, and it quotes what a stranger wrote.
_WORD_CHARACTERS, _MESSAGE_CHARACTERS = 80, 400
# So many mistakes of one file are told at once; who wrote it may be hostile.
_MOST_MISTAKES = 16


class Shape(NamedTuple):
    """What a text has to be, unless it is empty, and that in words."""

    fits: Callable[[str], object]
    expected: str


ADDRESS = Shape(is_mail_address, "a mail address, such as ops@example.org")
HOST_AND_PORT = Shape(
    re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}", re.ASCII).fullmatch,
    'a host and a port, such as "mail.example.org:587"',
)
WEB_ADDRESS = Shape(
    re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?(/[!-~]*)?", re.ASCII).fullmatch,
    'an address such as "https://example.org/hooks/construir"',
)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table. Of the keys named in `above_zero` a zero is an error; those in `shapes` are texts, or lists of such."""

    above_zero: ClassVar[tuple[str, ...]] = ()
    shapes: ClassVar[Mapping[str, Shape]] = {}
    # The keys that name a file or a directory; and those that name a program, or begin with one, which is looked for
    # on the PATH unless there is a slash in it.
    paths: ClassVar[tuple[str, ...]] = ()
    programs: ClassVar[tuple[str, ...]] = ()
    # How long a line may become that tells several mistakes; a single one has _MESSAGE_CHARACTERS at most.
    told_characters: ClassVar[int] = 1500
    # Where whoever wrote the file finds every key there is.
    listed_in: ClassVar[str] = "construir-server.toml(5), which construir man writes,"

    def __post_init__(self) -> None:
        for key in self.above_zero:
            if not getattr(self, key):
                raise ValueError(f"`{key}`: expected more than zero")
        for key, shape in self.shapes.items():
            value = getattr(self, key)
            for text in (value,) if isinstance(value, str) else value:
                if text and not shape.fits(text):
                    raise ValueError(f"`{key}`: expected {shape.expected}")


S = TypeVar("S", bound=Section)
T = TypeVar("T")


def read_text(path: Path) -> str:
    """The text of a configuration file. Raises ConfigError."""
    try:
        # TOML is UTF-8 whatever the locale says; some editors put a byte order mark in front.
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def parse_section(text: str, source: str, kind: type[S], directory: Path | None = None) -> S:
    """Read TOML that is to be a `kind`; `source` is what errors call it, `directory` where its relative paths begin.

    Raises ConfigError, whose message is one printable line whatever the text holds.
    """
    try:
        table = loads(text)
        if directory is not None:
            _locate(table, kind, directory)
        if found := list(itertools.islice(_mistakes(table, kind, kind), _MOST_MISTAKES + 1)):
            raise ConfigError(f"{one_line(source)}: {_told(found, kind)}")
        return convert(table, kind)
    except RecursionError as error:
        raise ConfigError(f"{one_line(source)}: not valid TOML: tables or lists are nested too deep") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{one_line(source)}: {_in_short(_plainly(str(error), kind))}") from error
    except ValueError as error:
        raise ConfigError(f"{one_line(source)}: not valid TOML: {_in_short(str(error))}") from error


def _locate(table: dict[str, Any], kind: type[Section], directory: Path) -> None:
    """Make paths absolute that begin in a directory."""
    for field in msgspec.structs.fields(kind):
        value = table.get(field.name)
        if isinstance(value, dict) and isinstance(field.type, type) and issubclass(field.type, Section):
            _locate(value, field.type, directory)
        elif isinstance(value, str) and value and field.name in kind.paths:
            table[field.name] = str(directory / value)
        elif field.name in kind.programs and field.name in table:
            table[field.name] = _located_program(value, directory)


def _located_program(value: object, directory: Path) -> object:
    if isinstance(value, list) and value:
        return [_located_program(value[0], directory), *value[1:]]
    return str(directory / value) if isinstance(value, str) and "/" in value else value


# -- what is wrong -----------------------------------------------------------------------------------------------

_NO_SUCH_KEY = "no such key"


def _mistakes(table: dict[str, Any], kind: type[Section], whole: type[Section], above: str = "") -> Iterator[str]:
    """What is wrong with a table, key by key; `above` is where in a `whole` it is, with a dot at its end."""
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    is_sound = True
    for key, value in table.items():
        expected = known.get(key)
        if expected is None:
            found = [f"{above}{key}: {_NO_SUCH_KEY}{_meant(key, list(known), whole)}"]
        elif isinstance(expected, type) and issubclass(expected, Section) and isinstance(value, dict):
            inner = _mistakes(value, expected, whole, f"{above}{key}.")
            found = list(itertools.islice(inner, _MOST_MISTAKES + 1))
        else:
            found = _mistakes_of_value(f"{above}{key}", value, expected, whole)
        is_sound = is_sound and not found
        yield from found
    if is_sound:
        yield from _mistakes_of_value(above.rstrip("."), table, kind, whole)


def _mistakes_of_value(where: str, value: object, expected: Any, whole: type[Section]) -> list[str]:
    try:
        msgspec.convert(value, expected, dec_hook=_decode)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).partition(" - at `$")
        path = ".".join(filter(None, [where, inner.rstrip("`").lstrip(".")])).replace(".[", "[")
        # A section tells all of its own, each on a line that begins with its key; msgspec's own may quote any text.
        several = what.split("\n") if what.startswith("`") else [what]
        return [_in_short(_plainly(f"{one} - at `$.{path}`" if path else one, whole)) for one in several]
    return []


def _meant(key: str, known: list[str], whole: type[Section]) -> str:
    """Which key was meant, if one is similar, or is in another table by that name."""
    tables = {
        field.name: [inner.name for inner in msgspec.structs.fields(field.type)]
        for field in msgspec.structs.fields(whole)
        if isinstance(field.type, type) and issubclass(field.type, Section)
    }
    elsewhere = [f"{name}.{key}" for name, keys in tables.items() if key in keys]
    is_word = len(key) <= _WORD_CHARACTERS
    meant = elsewhere or (difflib.get_close_matches(key, known, n=1) if is_word else [])
    return f" (did you mean {', '.join(meant)}?)" if meant else ""


def _told(mistakes: list[str], kind: type[Section]) -> str:
    """As many as a line holds, the first in any case; and where all keys are listed, if one is none."""
    told = ""
    for number, mistake in enumerate(map(_in_short, mistakes)):
        longer = f"{told}; {mistake}" if told else mistake
        if number and (len(longer) > kind.told_characters or number == _MOST_MISTAKES):
            told = f"{told}; and more"
            break
        told = longer
    return f"{told}; {kind.listed_in} lists them all" if _NO_SUCH_KEY in told else told


def loads(text: str) -> dict[str, Any]:
    """TOML -> plain values; an integer of more than 64 bits comes as one of 65, which no key of ours takes.

    Raises ValueError, RecursionError.
    """
    if any(line.count(".") > _MOST_DOTS for line in _STRINGS.sub("", text).split("\n")):
        raise RecursionError
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # int() has refused; what it refused is found by its key, once it is shorter
        table = tomllib.loads(_MANY_DIGITS.sub(lambda digits: digits[0][:100].rstrip("_"), text))
    return {key: _bounded(value) for key, value in table.items()}


def _bounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_bounded(entry) for entry in value]
    if type(value) is int:
        return max(-_BEYOND, min(value, _BEYOND))
    return value


def _in_short(message: str) -> str:
    words = re.sub(
        rf"[^\s:]{{{_WORD_CHARACTERS},}}", lambda word: f"{word[0][:_WORD_CHARACTERS]}...", one_line(message)
    )
    return words if len(words) <= _MESSAGE_CHARACTERS else f"{words[:_MESSAGE_CHARACTERS]}..."


@overload
def from_json(content: bytes | str, kind: type[T]) -> T: ...
@overload
def from_json(content: bytes | str, kind: Any) -> Any: ...  # a union, of which mypy makes no type[T]
def from_json(content: bytes | str, kind: Any) -> Any:
    """JSON, whoever it comes from -> a `kind`. Raises msgspec.MsgspecError, whatever is wrong with it."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError:
        raise
    except (ValueError, RecursionError) as error:  # it is not UTF-8; it is nested too deep
        raise msgspec.DecodeError(str(error)) from error


def convert(table: dict[str, Any], kind: type[S]) -> S:
    """A table of plain values -> a Section, sizes and durations with their units. Raises msgspec.ValidationError."""
    return msgspec.convert(table, kind, dec_hook=_decode)


def _decode(kind: type, value: object) -> object:
    if issubclass(kind, Size | Duration | Hours):
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
        what = _NO_SUCH_KEY if named[1] else named[3]
    elif what == "Integer value out of range":
        what = "expected a smaller number"
    elif what.startswith("Invalid enum value"):
        what = f"expected one of {', '.join(_choices(kind, key))}, got {what.split(maxsplit=3)[3]}"
    else:
        what = re.sub(r"`(\w+)(?: \| null)?`", lambda name: _PLAIN_KINDS.get(name[1], f"a {name[1]}"), what)
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
