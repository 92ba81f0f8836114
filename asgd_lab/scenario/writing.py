"""Plain data to text: YAML that reads back to the same data, and the short form that names a point of a sweep."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

_SEPARATORS = {*',=()[]"'}
_PLAIN = re.compile(r"(?![-+.0-9])[\x20-\x7e]*")  # text that no version of YAML takes for a number or a date


def dump(data: Mapping[str, Any]) -> str:
    """The data as YAML 1.2, in its own order; a list of plain values is on one line."""
    yaml = YAML()
    yaml.width = 2**20
    text = io.StringIO()
    yaml.dump(_styled(data), text)
    return text.getvalue()


def brief(values: Mapping[Any, Any]) -> str:
    """Like algorithm=asgd(n_sync=10),workers=2: no white space and no slash, so that it can name a folder."""
    return ",".join(f"{key}={_brief(value)}" for key, value in values.items())


def _brief(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case {"name": str(name), **rest}:
            return f"{_brief(name)}({brief(rest)})" if rest else _brief(name)
        case dict():
            return f"({brief(value)})"
        case list():
            return f"[{','.join(map(_brief, value))}]"
        case _:
            text = re.sub(r"[\s/\\]", "_", str(value))
            return f'"{text}"' if _SEPARATORS & {*text} else text  # or it could read as two values


def _styled(value: Any) -> Any:
    if isinstance(value, dict):
        return {_styled(key): _styled(one) for key, one in value.items()}
    if isinstance(value, list):
        items = CommentedSeq(map(_styled, value))
        if not any(isinstance(one, dict | list) and one for one in value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return DoubleQuotedScalarString(value)
    return value
