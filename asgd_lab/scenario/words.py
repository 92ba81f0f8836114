"""Parts of error messages: a list of alternatives, and a guess at a misspelt word; text in, text out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def either(values: Iterable[str]) -> str:
    """'a', 'b' or 'c'."""
    quoted = [repr(value) for value in values]
    return ", ".join(quoted[:-1]) + " or " + quoted[-1] if len(quoted) > 1 else quoted[0]


def meant(word: object, allowed: Iterable[str]) -> str:
    """`; did you mean ...?` if one of the allowed words is near enough, else ""."""
    plain = {one.lower().replace("-", "_"): one for one in allowed}
    text = str(word)
    if len(text) > 100:
        return ""
    near = difflib.get_close_matches(text.lower().replace("-", "_"), plain, n=1, cutoff=0.7)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""
