"""Promises of jobfile: no name reaches the disk that could be anything but a plain file name."""

import re
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import names

IN_IDS = string.ascii_letters + string.digits + "._-"
PLAIN = IN_IDS + "+~@=,"
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
plain_names = st.text(PLAIN, min_size=1, max_size=128).filter(
    lambda name: name[0] not in ".+~@=," and not DEVICE.fullmatch(name)
)


@given(plain_names)
def test_plain_names_are_taken(name: str) -> None:
    names.check_name(name)


@given(st.text(max_size=300))
@example("a\n")
@example("a" * 129)
@example("..")
@example("a\0b")
@example("hello\u202egnp.zst")
@example("\uff41")  # fullwidth a
@example("\u0661")  # a digit to str.isdigit
def test_any_other_name_is_refused(name: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._+~@=,-]*", name) and "\n" not in name and len(name) <= 128:
        return
    with pytest.raises(RefusedError) as caught:
        names.check_name(name)
    assert caught.value.reply == 553
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["con", "AUX.img.zst", "nul.x", "LPT1.gz"])
def test_a_name_that_no_result_can_have_on_windows_is_refused(name: str) -> None:
    with pytest.raises(RefusedError, match="is a device on Windows; rename it") as caught:
        names.check_name(name)
    assert caught.value.reply == 553


@given(plain_names)
@example("-.gz")
@example("_.img.xz")
@example("a" * 39 + ".x.zst")
@example("x.gz" * 32)
def test_slug_is_short_plain_and_never_hidden(name: str) -> None:
    slug = names.slug(name)
    assert 1 <= len(slug) <= 40
    assert set(slug) <= set(IN_IDS)
    assert slug[0] not in ".-"
    names.check_name(slug)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("hello", "hello"),
        ("hello.ext2.zst", "hello"),
        ("Hello.IMG.XZ", "Hello"),
        ("gcc-13.2.img.gz", "gcc-13.2"),
        ("raw.lz4", "raw"),
        ("-.gz", "job"),
        ("gcc_4:13.2".replace(":", "~") + "+b1.img.xz", "gcc_4-13.2-b1"),
    ],
)
def test_slug_is_the_name_without_its_suffixes(name: str, slug: str) -> None:
    assert names.slug(name) == slug


@given(plain_names)
def test_slug_refuses_what_is_no_name(name: str) -> None:
    with pytest.raises(RefusedError):
        names.slug(f"../{name}")


def test_id_is_utc_part_of_the_second_and_slug() -> None:
    noon = datetime(2026, 11, 22, 12, 41, 2, 500_000, tzinfo=timezone(timedelta(hours=2)))
    assert names.new_id("hello.ext2.zst", noon) == "20261122T104102Z-8000-hello"


@given(
    plain_names,
    plain_names,
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(9000, 1, 1)),
    st.timedeltas(min_value=names.STEP, max_value=timedelta(days=20)),
)
def test_ids_sort_by_time_however_close(first: str, second: str, naive: datetime, later: timedelta) -> None:
    now = naive.replace(tzinfo=UTC)
    assert names.new_id(first, now) < names.new_id(second, now + later)
