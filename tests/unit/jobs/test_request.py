"""What a job may ask for: every mistake is told by its key, and nothing is granted beyond the terms."""

import contextlib

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from construir_ftp import schema
from construir_ftp.errors import RefusedError
from construir_ftp.jobs import request
from construir_ftp.jobs.request import Dependencies, Terms, Wishes
from construir_ftp.units import Duration, Size

TERMS = Terms(
    timeout_s=7200,
    idle_timeout_s=1800,
    cpus=2,
    memory_bytes=2**30,
    image_bytes=2**30,
    bases=("bookworm-amd64", "trixie-amd64"),
)
ALL = """
name = "hello"
run = "./build/all.sh"
base = "trixie-amd64"
timeout = "30m"
idle_timeout = "10m"
cpus = 2
memory = "1GiB"
space = "500MiB"
outputs = ["out/*.deb"]
[env]
CFLAGS = "-O2 -g"
[dependencies]
packages = ["build-essential", "cmake=3.25.1-1"]
build_depends = ["debhelper-compat (= 13)", "libfoo-dev (>= 1:2~) | bar:native [!arm64] <!nocheck>", "Conflicts: baz"]
results = ["20261122T104102Z-7f3a-zlib"]
layers = ["ghc-9.8", "gcc@0123456789ab"]
"""


def refusal(text: str | bytes) -> str:
    with pytest.raises(RefusedError) as caught:
        request.read(text if isinstance(text, str) else request.decode(text))
    assert caught.value.reply == 550
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_is_understood() -> None:
    read = request.read(ALL)
    assert (read.timeout, read.memory, read.cpus) == (Duration(1800), Size(2**30), 2)
    assert read.env == {"CFLAGS": "-O2 -g"}
    assert read.dependencies.packages == ("build-essential", "cmake=3.25.1-1")
    assert read.dependencies.installs()[2] == "debhelper-compat (= 13)"
    TERMS.check(read, 2**20)


@pytest.mark.parametrize(
    "text", [ALL, "", 'timeout = "3650d"', 'idle_timeout = "12345.678s"', 'env = {A = "\\u007f\\n\\\\ \\"q\\" é"}']
)
def test_what_is_rendered_says_the_same(text: str) -> None:
    assert request.read(request.render(request.read(text))) == request.read(text)


def test_nothing_asked_for_is_everything_by_default() -> None:
    assert request.read("") == Wishes()
    TERMS.check(Wishes(), 2**30)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tiemout = '3h'", "tiemout: no such key"),
        ("timeout = 3", "timeout: expected"),
        ("timeout = '0s'", "timeout: expected more than zero"),
        ("cpus = 0", "cpus"),
        ("memory = '0B'", "memory"),
        ("run = '../../bin/sh'", "run: expected"),
        ("run = '/bin/sh'", "run: expected"),
        ("name = 'a/b'", "name: expected"),
        ("base = '../x'", "base: expected"),
        ("env = {'A=B' = 'c'}", "env: expected"),
        ("env = {A = 3}", "env"),
        ('env = {A = "a\\u0000b"}', "env: a value"),
        (f"env = {{A = '{'x' * 20_000}'}}", "env: expected at most"),
        ("[dependencies]\npackages = ['a b']", "dependencies.packages: expected"),
        ("[dependencies]\npackages = ['--help']", "dependencies.packages: expected"),
        ("[dependencies]\nbuild_depends = ['--help']", "dependencies.build_depends: expected"),
        ("[dependencies]\nbuild_depends = ['./x.deb']", "dependencies.build_depends: expected"),
        ("[dependencies]\nbuild_depends = ['a; b']", "dependencies.build_depends: expected"),
        ("[dependencies]\npackages = ['gcc', 'gcc']", "dependencies.packages: the same"),
        ("[dependencies]\nresults = ['../x']", "dependencies.results: expected"),
        ("[dependencies]\nlayers = ['/etc']", "dependencies.layers: expected"),
        ("[dependencies]\nlayers = ['ghc@latest']", "dependencies.layers: expected"),
        ("[dependencies", "not valid TOML"),
        ("x = " + "[" * 100_000, "not valid TOML"),
    ],
)
def test_mistake_is_refused_by_its_key(text: str, key: str) -> None:
    assert refusal(text).startswith(f"construir.toml: {key}")


def test_values_that_make_no_sense_are_told_together() -> None:
    told = refusal("name = 'a b'\nbase = 'x y'\nrun = '/x'\ntimeout = '0s'\n[dependencies]\npackages = ['hello']")
    keys = [part.partition(":")[0] for part in told.removeprefix("construir.toml: ").split("; ")]
    assert keys == ["timeout", "name", "base", "run"]
    told = refusal("cpus = 0\n[dependencies]\npackages = ['A B']\nresults = ['x']")
    assert [key in told for key in ("cpus:", "dependencies.packages:", "dependencies.results:")] == [True] * 3


def test_text_that_is_not_utf8_is_refused() -> None:
    assert "not UTF-8" in refusal(b"name = '\xff'")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("timeout = '3h'", "timeout: at most 2h"),
        ("idle_timeout = '2h'", "idle_timeout: at most"),
        ("cpus = 3", "cpus: at most 2"),
        ("memory = '2GiB'", "memory: at most 1024 MiB"),
        ("space = '600MiB'", "space: at most 512 MiB"),
        (
            "base = 'sid-amd64'",
            "base: there is no base image 'sid-amd64' here; there are: bookworm-amd64, trix",
        ),
    ],
)
def test_more_than_can_be_had_is_refused(text: str, key: str) -> None:
    with pytest.raises(RefusedError, match=f"construir.toml: {key}"):
        TERMS.check(request.read(text), 2**29)


def test_all_that_cannot_be_had_is_told_at_once() -> None:
    wanted = request.read("timeout = '9h'\ncpus = 64\nmemory = '64GiB'\nbase = 'sid'")
    with pytest.raises(RefusedError) as refused:
        TERMS.check(wanted, 2**29)
    assert str(refused.value) == (
        "construir.toml: timeout: at most 2h can be had here; cpus: at most 2 can be had here; memory: at most 1024 MiB"
        " can be had here; base: there is no base image 'sid' here; there are: bookworm-amd64, trixie-amd64"
    )


def test_what_has_no_room_in_a_reply_is_counted() -> None:
    told = str(request.refusal(["a" * 500, "b", "c"]))
    assert told == f"construir.toml: {'a' * 500}; and 2 more"
    assert str(request.refusal([f"{letter * 150}" for letter in "abcd"])).endswith(f"; {'b' * 150}; and 2 more")


# -- whatever a stranger writes ------------------------------------------------------------------------------------

_MANY = "9" * 5000
_VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.text(max_size=40).map(lambda text: f"'''{text}'''"),
    st.sampled_from(
        [
            _MANY,
            f"-{_MANY}",
            "9_" * 5000 + "9",
            "0x" + "f" * 5000,
            "0b" + "1" * 15_000,
            f'"{_MANY}B"',
            f'"{_MANY}d"',
            f"1e{_MANY}",
            f"0.{_MANY}",
            f"1e-{_MANY}",
            "inf",
            "-nan",
            "0001-01-01",
            "23:59:60",
            "9999-12-31T23:59:59+99:99",
            "[" * 3000 + "]" * 3000,
            "{a=" * 3000 + "1" + "}" * 3000,
            '"\\u0000"',
            '"\\ud800"',
            "'\\U000e0001\\u202e'",
            f'["{"a" * 8000}"]',
        ]
    ),
)
_KEYS = st.sampled_from(
    [
        *Wishes.__struct_fields__,
        *(f"dependencies.{key}" for key in Dependencies.__struct_fields__),
        "env.A",
        "nonsense",
        '"\\u0000"',
        "a" * 9000,
        ".".join("a" * 500),
    ]
)
_FILES = st.lists(st.tuples(_KEYS, _VALUES), max_size=3).map(
    lambda pairs: "\n".join(f"{key} = {value}" for key, value in pairs).encode()
)


@settings(deadline=None, max_examples=50)
@given(st.one_of(_FILES, st.text().map(lambda text: text.encode(errors="replace")), st.binary()))
@example(f"cpus = {_MANY}".encode())
@example(b"[a" * 5000)
@example(b"[[env]]")
@example(b"\\xed\\xa0\\x80")
def test_whatever_a_file_holds_it_is_a_request_or_is_refused_in_one_line(text: bytes) -> None:
    try:
        asked = request.read(request.decode(text))
    except RefusedError as refused:
        assert str(refused).isprintable()
        assert len(str(refused)) < 600
    else:
        assert request.read(request.render(asked)) == asked
        with contextlib.suppress(RefusedError):
            TERMS.check(asked, 2**20)


@pytest.mark.parametrize("number", [_MANY, f"-{_MANY}", "0x" + "f" * 5000, "9_" * 5000 + "9", "9" * 20])
@pytest.mark.parametrize("key", ["cpus", "timeout", "memory", "name", "dependencies.packages"])
def test_a_number_too_long_to_be_read_is_refused_by_its_key(key: str, number: str) -> None:
    assert f"{key}: expected" in refusal(f"run = './run.sh'\n{key} = {number}")


def test_nesting_too_deep_to_be_read_is_refused_in_plain_words() -> None:
    assert refusal("cpus = " + "[" * 3000) == "construir.toml: not valid TOML: tables or lists are nested too deep"


DEEP = ".".join("a" * 200)


@pytest.mark.parametrize(
    "text",
    [
        f"{DEEP} = 1",
        ".".join(["''"] * 200) + " = 1",
        '"\\"" . ' + DEEP + " = 1",
        f"[{DEEP}]",
        f"run = '''\n#'''  # '\n{DEEP} = 1",
        f'run = "\\""\n{DEEP} = """',
        f"env = {{A = '', {DEEP} = 1}}",
        ".".join("a" * 8000) + " = 1",
    ],
)
def test_a_key_of_very_many_parts_is_refused_before_it_is_parsed(text: str) -> None:
    assert refusal(text) == "construir.toml: not valid TOML: tables or lists are nested too deep"


@pytest.mark.parametrize("quote", ['"', "'", '"""', "'''"])
@pytest.mark.parametrize(
    "before",
    ["", '# it\'s """\n', "run = '\"'\n", 'run = "\'\\""\n', "name = ''\n", 'base = """"""\n', "run = '''\n'''''\n"],
)
def test_dots_in_strings_and_comments_are_no_parts_of_keys(quote: str, before: str) -> None:
    dots = "a." * 500
    assert schema.loads(f"{before}env.DOTS = {quote}{dots}{quote} # {dots}\n#{dots}")["env"] == {"DOTS": dots}


# No value of the environment holds a NUL.
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(_TEXT, _TEXT)
def test_whatever_is_in_strings_their_dots_are_no_parts_of_keys(one: str, other: str) -> None:
    env = {"ONE": f"{one}{'.' * 200}", "OTHER": f"{'.' * 200}{other}"}
    assert schema.loads(request.render(msgspec.structs.replace(Wishes(), env=env)))["env"] == env


def test_a_long_key_is_quoted_in_short() -> None:
    assert (
        refusal("a" * 9000 + " = 1")
        == f"construir.toml: {'a' * 80}...: no such key; construir.toml(5), or the server's /README.txt, lists them all"
    )


def test_all_mistakes_are_told_at_once_as_far_as_a_reply_holds_them() -> None:
    with pytest.raises(RefusedError) as refused:
        request.read('tiemout = "1h"\npackages = ["gcc"]\ncpus = "two"\n')
    assert str(refused.value) == (
        "construir.toml: tiemout: no such key (did you mean timeout?)"
        "; packages: no such key (did you mean dependencies.packages?)"
        "; cpus: expected a whole number, got text in quotes"
        "; construir.toml(5), or the server's /README.txt, lists them all"
    )
    with pytest.raises(RefusedError) as refused:
        request.read("".join(f"{'k' * 70}{number} = 1\n" for number in range(150)))
    assert len(str(refused.value)) < 600


def test_a_date_is_given_to_who_has_none_and_finds_room() -> None:
    assert request.dated(Wishes(), 1_700_000_000).env == {"SOURCE_DATE_EPOCH": "1700000000"}
    assert request.dated(Wishes(), 0).env == {}
    own = Wishes(env={"SOURCE_DATE_EPOCH": ""})
    assert request.dated(own, 1_700_000_000) == own
    full = Wishes(env={"A": "x" * (16 * 1024 - 2)})
    assert request.dated(full, 1_700_000_000) == full
