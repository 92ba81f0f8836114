"""The source text of a class or a function, also of one in a notebook's cell; for the reader of a record."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
import types
from typing import Any

_MOST_CHARACTERS = 100_000


def source_of(definition: Any) -> str | None:
    """The source, without the indentation around it; None where it is not found."""
    try:
        found: str | None = inspect.getsource(definition)
    except (OSError, TypeError, IndentationError, SyntaxError):
        # Of a class in a cell, `inspect` knows no file; its methods know.
        found = _of_class(definition) if isinstance(definition, type) else None
    return None if found is None else textwrap.dedent(found)[:_MOST_CHARACTERS]


def _of_class(definition: type) -> str | None:
    for each in vars(definition).values():
        function = getattr(each, "__func__", each)
        if isinstance(function, types.FunctionType) and function.__qualname__.startswith(definition.__qualname__ + "."):
            code = function.__code__
            lines = linecache.getlines(code.co_filename)
            try:
                tree = ast.parse("".join(lines))
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and node.name == definition.__name__:
                    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                    if first <= code.co_firstlineno <= (node.end_lineno or 0):
                        return "".join(lines[first - 1 : node.end_lineno])
    return None
