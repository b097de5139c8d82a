"""Promises of config: what is in etc/construir.toml is what there is, and a mistake is told in plain words."""

import os
import time
import tomllib
from pathlib import Path

import msgspec
import pytest

from construir_ftp import config
from construir_ftp.config import Config
from construir_ftp.errors import ConfigError
from construir_ftp.units import Duration, Size
from tests.support.places import PROJECT

REFERENCE = PROJECT / "etc" / "construir.toml"
LISTED = "; construir-server.toml(5), which construir man writes, lists them all"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "my.toml")
    return str(caught.value)


def undocumented(text: str) -> list[str]:
    """Keys of every section that the text lacks, or gives without a comment above them."""
    tables = tomllib.loads(text)
    lines = text.splitlines()
    missing = []
    for section in msgspec.structs.fields(Config):
        begin = lines.index(f"[{section.name}]") if f"[{section.name}]" in lines else len(lines)
        for key in msgspec.structs.fields(section.type):
            at = next((n for n in range(begin, len(lines)) if lines[n].startswith(f"{key.name} = ")), 0)
            comment = lines[at - 1].removeprefix("#").strip() if at and lines[at - 1].startswith("#") else ""
            if not comment or key.name not in tables.get(section.name, {}):
                missing.append(f"{section.name}.{key.name}")
    return missing


# -- etc/construir.toml ------------------------------------------------------------------------------------


def test_reference_file_holds_exactly_the_defaults() -> None:
    assert config.load(REFERENCE) == Config()


def test_reference_file_documents_every_key() -> None:
    assert undocumented(REFERENCE.read_text()) == []


def test_a_key_without_documentation_is_noticed() -> None:
    text = REFERENCE.read_text()
    assert undocumented(text.replace("# Largest image, unpacked.\n", "")) == ["gate.max_image"]
    assert undocumented(text.replace('max_image = "16GiB"\n', "")) == ["gate.max_image"]


def test_reference_file_uses_a_unit_for_every_size_and_time() -> None:
    tables = tomllib.loads(REFERENCE.read_text())
    for section in msgspec.structs.fields(Config):
        for key in msgspec.structs.fields(section.type):
            if key.type in (Size, Duration):
                assert isinstance(tables[section.name][key.name], str), f"{section.name}.{key.name}"


# -- reading -------------------------------------------------------------------------------------------------


def test_without_a_file_every_default_holds() -> None:
    assert config.load(None) == Config()


def test_sizes_and_times_are_read_with_their_units(tmp_path: Path) -> None:
    path = tmp_path / "construir.toml"
    path.write_text('[gate]\nmax_image = "1.5GiB"\n[machine]\ntimeout = " 90 min "\nboot_timeout = "250ms"\n')
    read = config.load(path)
    assert read.gate.max_image == 3 * 2**29
    assert read.machine.timeout == 5400.0
    assert read.machine.boot_timeout == 0.25
    assert read.ftp == Config().ftp


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "construir.toml"
    path.write_bytes(b'\xef\xbb\xbf[images]\r\ndefault = "trixie-amd64"\r\n')
    assert config.load(path).images.default == "trixie-amd64"


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "construir.toml"
    path.write_bytes('[spool]\npath = "/srv/bücher"\n'.encode())
    assert config.load(path).spool_path() == Path("/srv/bücher")


# -- what is wrong -------------------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file or directory; name a readable file with --config"):
        config.load(tmp_path / "gone.toml")


def test_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory; name a readable file with --config"):
        config.load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "construir.toml"
    path.touch(mode=0)
    with pytest.raises(ConfigError, match="Permission denied; name a readable file with --config"):
        config.load(path)


def test_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "construir.toml"
    path.write_bytes(b'# caf\xe9\n[spool]\npath = ""\n')
    with pytest.raises(ConfigError, match=r"construir\.toml: not UTF-8 text \(byte 5\); save it as UTF-8"):
        config.load(path)


def test_bad_toml_is_told_with_its_line() -> None:
    message = refusal("[ftp]\nport = \n")
    assert message.startswith("my.toml: not valid TOML: ")
    assert "line 2" in message


def test_toml_nested_beyond_reason_is_no_crash() -> None:
    assert refusal("a = " + "[" * 100_000).startswith("my.toml: not valid TOML: ")


def test_unknown_key_and_section_are_told() -> None:
    assert refusal("[ftp]\nzzz = 1") == f"my.toml: ftp.zzz: no such key{LISTED}"
    assert refusal("[zzz]") == f"my.toml: zzz: no such key{LISTED}"


def test_all_mistakes_are_told_at_once_and_what_was_meant() -> None:
    text = """
    port = 21
    [ftp]
    max_uplaod = "1GiB"
    max_age = "1d"
    address = 5
    [machine]
    timeout = "soon"
    [janitors]
    [tls]
    key = "x.pem"
    """
    assert refusal(text) == (
        "my.toml: port: no such key (did you mean ftp.port, site.port?)"
        "; ftp.max_uplaod: no such key (did you mean max_upload?)"
        "; ftp.max_age: no such key (did you mean janitor.max_age?)"
        "; ftp.address: expected text in quotes, got a whole number"
        '; machine.timeout: expected a number with a unit (ms, s, min, m, h, d), such as "90min", got "soon"'
        "; janitors: no such key (did you mean janitor?)"
        "; tls.key: expected tls.certificate beside it"
        f"{LISTED}"
    )


def test_a_file_full_of_mistakes_is_refused_in_a_short_line_and_at_once() -> None:
    text = "[ftp]\n" + "".join(f"max_uplaod{number} = 1\n" for number in range(20_000))
    began = time.process_time()
    told = refusal(text)
    assert len(told) < 1700
    assert told.endswith(f"; and more{LISTED}")
    assert time.process_time() - began < 5, "looking for what was meant ends with what is told"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[ftp]\nport = "2121"', "ftp.port: expected a whole number, got text in quotes"),
        ("[ftp]\nport = 21.5", "ftp.port: expected a whole number, got a number with a point"),
        ("[ftp]\nport = true", "ftp.port: expected a whole number, got true or false"),
        ("[ftp]\nport = 1979-05-27", "ftp.port: expected a whole number, got a date"),
        ("[ftp]\nport = []", "ftp.port: expected a whole number, got a list"),
        ('[trust]\nkey = "my.key"', "trust.key: expected an absolute path"),
        ("[ftp]\nusers = 5", "ftp.users: expected text in quotes, got a whole number"),
        ("ftp = 21", "ftp: expected a table, got a whole number"),
        ('[gate]\nfilesystems = "ext2"', "gate.filesystems: expected a list, got text in quotes"),
        ("[ftp]\nport = -1", "ftp.port: expected a whole number >= 0"),
        ("[ftp]\nport = 65536", "ftp.port: expected a whole number <= 65535"),
        ("[janitor]\nmax_results = 0", "janitor.max_results: expected a whole number >= 1"),
        ("[gate]\nfilesystems = []", "gate.filesystems: expected a list of length >= 1"),
    ],
)
def test_wrong_type_or_range_says_what_was_expected(text: str, expected: str) -> None:
    assert refusal(text) == f"my.toml: {expected}"


def test_wrong_choice_says_which_there_are() -> None:
    assert refusal('[machine]\naccelerator = "xen"') == (
        'my.toml: machine.accelerator: expected one of "auto", "kvm", "tcg", "uml", got \'xen\''
    )
    assert refusal('[gate]\nfilesystems = ["ext2", "ntfs"]') == (
        'my.toml: gate.filesystems[1]: expected one of "btrfs", "ext2", "ext3", "ext4", "xfs", got \'ntfs\''
    )


@pytest.mark.parametrize("value", ['"-5MiB"', '"5"', '"5MB"', '"MiB"', '""', "5", "-5", "5.5", "true", '"5 MiB 3"'])
def test_size_that_is_negative_or_without_unit_is_an_error(value: str) -> None:
    got = f"got {tomllib.loads(f'v = {value}')['v']!r}".replace("'", '"')
    expected = 'expected a number with a unit (B, KiB, MiB, GiB, TiB), such as "512MiB"'
    assert refusal(f"[ftp]\nmax_upload = {value}") == f"my.toml: ftp.max_upload: {expected}, {got}"


@pytest.mark.parametrize("value", ['"-1h"', '"30"', '"2 hours"', "30"])
def test_time_that_is_negative_or_without_unit_is_an_error(value: str) -> None:
    expected = 'expected a number with a unit (ms, s, min, m, h, d), such as "90min"'
    assert refusal(f"[machine]\ntimeout = {value}").startswith(f"my.toml: machine.timeout: {expected}, got ")


def test_values_beyond_what_the_kernel_takes_are_errors() -> None:
    assert refusal('[janitor]\nmax_total = "8388608TiB"').endswith(': expected less than 8 EiB, got "8388608TiB"')
    assert refusal('[janitor]\nmax_age = "36500d"').endswith(': expected less than 100 years, got "36500d"')
    assert refusal(f'[janitor]\nmax_total = "{"9" * 500}TiB"').endswith('999..."')


@pytest.mark.parametrize(
    ("section", "key", "zero"),
    [
        ("ftp", "max_upload", "0B"),
        ("gate", "timeout", "0s"),
        ("machine", "memory", "0MiB"),
        ("runner", "scan_every", "0s"),
        ("janitor", "every", "0min"),
    ],
)
def test_zero_is_an_error_where_it_makes_no_sense(section: str, key: str, zero: str) -> None:
    assert refusal(f'[{section}]\n{key} = "{zero}"') == f"my.toml: {section}.{key}: expected more than zero"


def test_zero_is_no_error_where_it_makes_sense() -> None:
    read = config.parse('[runner]\ngrace = "0s"\nslots = 0\n[machine]\nlog_head = "0B"', "my.toml")
    assert (read.runner.grace, read.runner.slots, read.machine.log_head) == (0.0, 0, 0)


def test_every_key_named_above_zero_exists() -> None:
    for section in msgspec.structs.fields(Config):
        assert set(section.type.above_zero) <= {key.name for key in msgspec.structs.fields(section.type)}


def test_message_is_one_printable_line() -> None:
    for hostile in (
        '[ftp]\n"\\u001b[31m\\n" = 1',
        '[machine]\naccelerator = "\\n\\u202e"',
        '[ftp]\nmax_upload = "\\r"',
    ):
        assert refusal(hostile).isprintable()


# -- where things are ------------------------------------------------------------------------------------------


def test_configured_paths_win() -> None:
    read = config.parse('[spool]\npath = "/a"\n[images]\npath = "/b"\n[ftp]\nusers = "/c"', "my.toml")
    assert (read.spool_path(), read.images_path(), read.users_path()) == (Path("/a"), Path("/b"), Path("/c"))


# Keys whose text names no file of this computer.
_NO_PATHS = {
    "images": {"default", "mirror", "ubuntu_mirror", "snapshot_mirror", "uml_source"},
    "ftp": {"address", "passive_ports", "masquerade_address"},
    "trust": {"name"},
    "notify": {"smtp", "smtp_user", "sender", "webhook", "server"},
    "site": {"title", "url", "address"},
    "slurm": {"partition", "account"},
}


def test_every_path_of_the_configuration_begins_where_its_file_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the current directory is, and whichever key it is: one that is added has to be named here or there."""
    alone = {"tls.key": 'certificate = "x"\n', "notify.smtp_password_file": 'smtp = "a:1"\nsmtp_user = "u"\n'}
    alone["notify.webhook_secret_file"] = 'webhook = "https://a/b"\n'
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    file = Path("etc/my.toml")
    for section in msgspec.structs.fields(Config):
        texts = {field.name for field in msgspec.structs.fields(section.type) if field.type is str}
        assert texts - _NO_PATHS.get(section.name, set()) <= {*section.type.paths, *section.type.programs}
        for key in (*section.type.paths, *section.type.programs):
            before = f"[{section.name}]\n{alone.get(f'{section.name}.{key}', '')}"
            form = '["{}", "b/c"]' if key == "command" else '"{}"'
            for given, meant in (("a/../b", tmp_path / "etc/a/../b"), ("/a/b", Path("/a/b"))):
                file.write_text(f"{before}{key} = {form.format(given)}\n")
                found = getattr(getattr(config.load(file), section.name), key)
                assert found == ((str(meant), "b/c") if key == "command" else str(meant))
            file.write_text(f"{before}{key} = {form.format('word')}\n")
            found = getattr(getattr(config.load(file), section.name), key)
            is_program = key in section.type.programs
            expected = "word" if is_program else str(tmp_path / "etc/word")
            assert found == ((expected, "b/c") if key == "command" else expected)


def test_wrong_types_in_the_place_of_paths_are_told_as_ever(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    for text in ("spool = 1", "[spool]\npath = 1", "[notify]\ncommand = [1]", "[notify]\ncommand = 'x'", "[ftp.users]"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="expected"):
            config.load(file)


def test_users_file_is_in_the_spool_unless_configured() -> None:
    assert config.parse('[spool]\npath = "/a"', "my.toml").users_path() == Path("/a/users.toml")


@pytest.mark.parametrize("state_home", ["/xdg", "relative", ""])
def test_paths_of_an_ordinary_user_follow_xdg(monkeypatch: pytest.MonkeyPatch, state_home: str, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", state_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    expected = Path("/xdg/construir") if state_home == "/xdg" else tmp_path / ".local/state/construir"
    assert Config().spool_path() == expected
    assert Config().images_path() == tmp_path / ".cache/construir/images"


def test_paths_of_root_are_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Config().spool_path() == Path("/var/lib/construir")
    assert Config().images_path() == Path("/var/lib/construir/images")


@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "0x" + "f" * 5000, "-1", "1e999", "nan", "[" * 3000, '"9"', "1979-05-27", "'\\u202e'", "9" * 12],
)
def test_whatever_value_a_key_has_it_is_taken_or_refused_in_one_line(value: str) -> None:
    for section in msgspec.structs.fields(Config):
        for key in msgspec.structs.fields(section.type):
            try:
                config.parse(f"[{section.name}]\n{key.name} = {value}", "my.toml")
            except ConfigError as refused:
                assert str(refused).isprintable()
                assert len(str(refused)) < 600
                assert f"{section.name}.{key.name}" in str(refused) or "nested too deep" in str(refused)


def test_both_kinds_of_tls_need_a_port_of_their_own() -> None:
    text = '[ftp]\nport = 990\n[tls]\ncertificate = "/c"\nimplicit = true\n'
    assert refusal(text) == "my.toml: tls.implicit_port: expected another port than ftp.port"
    assert config.parse(text.replace("implicit = true", ""), "my.toml").ftp.port == 990


def test_more_slots_than_any_host_has_are_refused() -> None:
    assert refusal("[runner]\nslots = 1000000000") == "my.toml: runner.slots: expected a whole number <= 1000"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('smtp = "mail.example.org"', 'notify.smtp: expected a host and a port, such as "mail.example.org:587"'),
        ('smtp = "a:1"\nsendmail = "/x"', "notify.sendmail: expected no notify.smtp beside it"),
        ('operators = ["a@b"]', "notify.operators: expected notify.smtp or notify.sendmail beside it"),
        ('sendmail = "/x"\noperators = ["a@b", "b"]', "notify.operators: expected a mail address, such as ops@"),
        ('sender = "a@b\\nBcc: c@d"', "notify.sender: expected a mail address"),
        ('smtp = "a:1"\nsmtp_tls = "none"\nsmtp_user = "c"', "notify.smtp_user: expected TLS (notify.smtp_tls)"),
        ('smtp_user = "c"', "notify.smtp_user: expected notify.smtp beside it"),
        ('smtp = "a:1"\nsmtp_password_file = "/p"', "notify.smtp_password_file: expected notify.smtp_user beside it"),
        ('webhook_secret_file = "/p"', "notify.webhook_secret_file: expected notify.webhook beside it"),
        ('webhook = "ftp://a/b"', "notify.webhook: expected an address such as"),
        ('webhook = "https://a/b c"', "notify.webhook: expected an address such as"),
        ('smtp_tls = "ssl"', 'notify.smtp_tls: expected one of "none", "starttls", "tls"'),
    ],
)
def test_impossible_ways_of_telling_are_refused_by_their_keys(keys: str, says: str) -> None:
    assert says in refusal(f"[notify]\n{keys}\n")
