"""Text made plain, cut to sentences and filtered; and the count of what was dropped and why."""

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5
"""Dropped rows that a report shows of each reason."""


# --- text ----------------------------------------------------------------------------------------

# C1 controls are Windows-1252 punctuation that was decoded as Latin-1 (\x85 is an ellipsis).
_PLAIN: dict[int, str] = {
    **{code: bytes([code]).decode("cp1252", errors="ignore") or " " for code in range(0x80, 0xA0)},
    **dict.fromkeys(map(ord, "‘’‚‛´"), "'"),
    **dict.fromkeys(map(ord, "“”„‟«»"), '"'),
    **{ord("–"): "-", ord("—"): " - ", ord("…"): "...", 0xAD: "", 0xFEFF: ""},
}
_QUOTE_PAIRS = re.compile(r"''|``")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069]")
_LINE_BREAK = re.compile(r"<\s*(?:br|/?p)\b[^<>]{0,100}>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")


def without_markup(text: str) -> str:
    """Remove HTML tags; `<br>` and `<p>` become line breaks."""
    return _TAG.sub(" ", _LINE_BREAK.sub("\n", text))


def normalise(text: str) -> str:
    r"""Return `text` on one line, with plain quotes, dashes and spaces and no HTML entities.

    `''so  bad''` becomes `"so bad"`, `S&amp;M` becomes `S&M`. Letters and case stay as they are.
    Idempotent but for entities inside entities.
    """
    text = html.unescape(text)
    if not text.isascii():  # the second look turns what Windows-1252 gave into plain quotes
        text = unicodedata.normalize("NFC", text).translate(_PLAIN).translate(_PLAIN)
    return " ".join(_QUOTE_PAIRS.sub('"', _CONTROL.sub(" ", text)).split())


_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Rev|Gen|Col|Lt|Sgt|Capt|vs|etc|e\.g|i\.e|Vol)"
    r"|(?:^|[\s.(\"])[A-Z])\.$"
)
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")


def sentences(text: str) -> list[str]:
    """Cut one normalised paragraph after `.`, `!` or `?` where a capital or a digit follows.

    Titles and initials (`Mr. T. Smith`) do not end a sentence.
    """
    found, start = [], 0
    for end in _END.finditer(text):
        if _ABBREVIATION.search(text, max(start, end.start() - 12), end.start()):
            continue
        found.append(text[start : end.end()].strip())
        start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


# --- filters -------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"https?://|www\.|\S@\S+\.\S", re.IGNORECASE)
_RUN = re.compile(r"(.)\1{7}")


def unfit_length(text: str, words: tuple[int, int]) -> str | None:
    """Say why a text is too short or too long, or None.

    Args:
        text: any text.
        words: fewest and most words, both allowed.
    """
    count = len(text.split())
    if not count:
        return "empty"
    if count < words[0]:
        return f"fewer than {words[0]} words"
    if count > words[1]:
        return f"more than {words[1]} words"
    return None


def unfit_sentence(sentence: str) -> str | None:
    """Say why a sentence is hardly one that a person wrote as prose, or None."""
    if _ADDRESS.search(sentence):
        return "holds a web or mail address"
    if _RUN.search(sentence):
        return "the same character eight times in a row"
    if sum(map(str.isalpha, sentence)) < 0.6 * len(sentence):
        return "less than 60 % letters"
    return None


# --- the report ----------------------------------------------------------------------------------


@dataclass
class Tally:
    """How many rows came in, how many stayed, and which were dropped, by reason."""

    read: int = 0
    unit: str = "line"
    """What a row's number counts: lines, or the rows of a table that has none."""
    dropped: dict[str, list[tuple[int | None, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Number (from 1; None where there is none) and text of every row dropped, by reason."""

    def drop(self, reason: str, text: str, number: int | None = None) -> None:
        """Count one row out."""
        self.dropped[reason].append((number, text if len(text) <= 120 else text[:119] + "…"))

    @property
    def lost(self) -> int:
        """Rows dropped, for whatever reason."""
        return sum(map(len, self.dropped.values()))

    def as_dict(self) -> dict[str, Any]:
        """Counts and the first few examples of each reason, the most frequent first."""
        by_count = sorted(self.dropped.items(), key=lambda item: -len(item[1]))
        return {
            "read": self.read,
            "kept": self.read - self.lost,
            "dropped": {
                reason: {
                    "count": len(rows),
                    "examples": [
                        {"text": text} if number is None else {self.unit: number, "text": text}
                        for number, text in rows[:EXAMPLES]
                    ],
                }
                for reason, rows in by_count
            },
        }


def lengths(texts: Iterable[str]) -> dict[str, float]:
    """Words a text: mean, minimum, median, 95th percentile and maximum; empty if there are none."""
    counts: Sequence[int] = sorted(len(text.split()) for text in texts)
    if not counts:
        return {}
    last = len(counts) - 1
    return {
        "mean": round(sum(counts) / len(counts), 2),
        "min": counts[0],
        "median": counts[last // 2],
        "p95": counts[round(0.95 * last)],
        "max": counts[-1],
    }
