"""What a user did wrong, said in one sentence.

`UserError` is the only exception the command line turns into a line and exit code 2. Beside
`files.StorageError`, anything else that escapes is a bug of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and how to mend it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known word, or `""` if none is close."""
    by_lowercase = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), by_lowercase, n=1, cutoff=0.5)
    return f"; did you mean {by_lowercase[matches[0]]!r}?" if matches else ""
