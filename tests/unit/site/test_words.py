"""Promises of words: nothing that a stranger wrote is hidden on a page; sizes and times as people say them."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from construir_ftp.site import words


@given(st.text())
def test_what_is_shown_holds_no_character_that_hides_or_turns_others(text: str) -> None:
    shown = words.visible(text)
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert words.visible(shown) == shown


@given(st.text(st.characters()))
def test_what_is_shown_can_stand_in_a_feed(text: str) -> None:
    element = ElementTree.fromstring(f"<title>{escape(words.visible(text))}</title>")
    assert (element.text or "") == words.visible(text)


def test_what_is_ordinary_is_shown_as_it_is() -> None:
    assert words.visible("grüße 你好, 1 < 2\n") == "grüße 你好, 1 < 2\n"
    assert words.visible("\x1b[31m\u202eexe.txt\0") == r"\x1b[31m\u202eexe.txt\x00"


def test_a_log_is_shown_without_its_colours_and_with_the_last_form_of_each_line() -> None:
    assert words.log_text(b"\x1b[32mok\x1b[0m\n10%\r50%\r100%\r\n\x1b]0;title\x07end") == "ok\n100%\nend"


@given(st.binary())
def test_whatever_a_log_holds_it_is_text(content: bytes) -> None:
    words.visible(words.log_text(content))


def test_sizes_and_lengths_of_time_are_in_words() -> None:
    assert [words.size(number) for number in (0, 1023, 1536, 20 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "20 MiB",
        "3.0 TiB",
    ]
    lengths = [words.length(seconds) for seconds in (-1, 0.25, 59.4, 60, 192, 3900, 90000)]
    assert lengths == ["0.0 s", "0.2 s", "59 s", "1 min", "3 min 12 s", "1 h 5 min", "1 d 1 h"]
