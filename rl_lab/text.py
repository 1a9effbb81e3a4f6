"""Text from outside (environment messages, names, model output), made inert for a terminal.

A control character in such a text could move the cursor, recolour or retitle the terminal, and a
bidirectional override could make a line read as another. Every screen shows outside text through
`inert`, inside a `rich.text.Text` (which, unlike a plain `str`, is never parsed for markup).
"""

import unicodedata

from rich.text import Text

# Cc control, Cf format (bidi overrides, zero-width), Cs surrogates, Zl and Zp separators.
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def inert(text: object) -> str:
    r"""Return `text` as one line with every control or format character spelled out (`\x1b`)."""
    return "".join(
        character
        if unicodedata.category(character) not in _UNSAFE
        else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def short(value: float) -> str:
    """Say a return: one decimal where it is large, three digits where it is small."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def inert_text(text: object, style: str = "") -> Text:
    """`inert`, as a rich Text that holds no markup."""
    return Text(inert(text), style=style)
