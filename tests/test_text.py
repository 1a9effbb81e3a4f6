"""Text from outside is shown inert."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rl_lab.text import inert, inert_text


@given(st.text())
def test_no_control_or_format_character_is_left(text: str) -> None:
    for character in inert(text):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text())
def test_any_text_can_be_printed(text: str) -> None:
    Console(width=40, quiet=True).print(inert_text(text))


def test_what_looks_like_markup_or_an_escape_stays_visible() -> None:
    assert inert("[/] [red]x[/red]") == "[/] [red]x[/red]"
    assert inert("\x1b[31mred\x1b]0;title\x07") == "\\x1b[31mred\\x1b]0;title\\x07"
    assert inert("abc\u202edef\n") == "abc\\u202edef\\n"
