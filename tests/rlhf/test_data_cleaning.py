"""Text made plain, cut and filtered."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_lab.rlhf.data.cleaning import (
    Tally,
    lengths,
    normalise,
    sentences,
    unfit_length,
    unfit_sentence,
    without_markup,
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("''so  bad''", '"so bad"'),
        ("S&amp;M", "S&M"),
        ("it\x92s good\x85", "it's good..."),
        ("“It’s”\u00a0a\u2028film – mostly", '"It\'s" a film - mostly'),
        ("a\x00b\u202ec", "a b c"),
    ],
)
def test_normalise(text: str, plain: str) -> None:
    assert normalise(text) == plain


@given(st.text())
def test_normalised_text_is_one_line_of_plain_characters(text: str) -> None:
    plain = normalise(text)
    assert plain == " ".join(plain.split())
    assert not any(unicodedata.category(character) == "Cc" for character in plain)


def test_markup_is_removed_and_breaks_stay() -> None:
    assert without_markup("a<br /><br/>b <i>c</i> 3 < 4") == "a\n\nb  c  3 < 4"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("I saw it. It was bad! Why?", ["I saw it.", "It was bad!", "Why?"]),
        ("Mr. Smith and J. R. Lee met. They left.", ["Mr. Smith and J. R. Lee met.", "They left."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("It cost 3.50 or so, e.g. nothing", ["It cost 3.50 or so, e.g. nothing"]),
        ("", []),
    ],
)
def test_sentences(text: str, cut: list[str]) -> None:
    assert sentences(text) == cut


@given(st.text(alphabet="aB .!?\"'()"))
def test_sentences_lose_nothing_but_spaces(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("  ", "empty"),
        ("so bad", "fewer than 3 words"),
        ("a b c d e f", "more than 5 words"),
        ("so bad it is", None),
    ],
)
def test_unfit_length(text: str, reason: str | None) -> None:
    assert unfit_length(text, (3, 5)) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("see www.example.com for more", "holds a web or mail address"),
        ("soooooooooo bad it is", "the same character eight times in a row"),
        ("8 / 10 or 3 / 4", "less than 60 % letters"),
        ("It was a good film, mostly.", None),
    ],
)
def test_unfit_sentence(text: str, reason: str | None) -> None:
    assert unfit_sentence(text) == reason


def test_a_tally_adds_up_and_shows_the_most_frequent_reason_first() -> None:
    tally = Tally(read=10)
    tally.drop("short", "a", 3)
    for line in range(7):
        tally.drop("empty", "x" * 500, line)
    report = tally.as_dict()
    assert report["kept"] == 2
    assert list(report["dropped"]) == ["empty", "short"]
    assert report["dropped"]["empty"]["count"] == 7
    assert len(report["dropped"]["empty"]["examples"]) == 5
    assert len(report["dropped"]["empty"]["examples"][0]["text"]) == 120
    assert report["dropped"]["short"]["examples"] == [{"line": 3, "text": "a"}]


def test_lengths() -> None:
    assert lengths(["a", "a b c", "a b"]) == {"mean": 2, "min": 1, "median": 2, "p95": 3, "max": 3}
    assert lengths([]) == {}
