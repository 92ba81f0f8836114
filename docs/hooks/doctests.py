"""An extension of griffe: sessions in docstrings become blocks of code, so that Markdown leaves them as they are."""

from __future__ import annotations

import re
from typing import Any

import griffe

SESSION = re.compile(r"(?m)^>>> (?:.*\S.*\n?)+")


class Doctests(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = SESSION.sub(_block, obj.docstring.value)


def _block(session: re.Match[str]) -> str:
    return f"```pycon\n{session[0].rstrip()}\n```\n"
