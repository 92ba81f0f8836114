"""Words of the package and of `analysis/` (CONTRIBUTING.md, *Words*): which docstrings and comments are refused."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import asgd_lab

PACKAGE = Path(asgd_lab.__file__).parent
ANALYSIS = Path(__file__).parents[1] / "analysis"
FILES = {str(path.relative_to(root)): path for root in (PACKAGE, ANALYSIS) for path in sorted(root.rglob("*.py"))}
RELATIVE = re.compile(r"(What|Whatever|Who|Whoever|Whose|Whom|Which|How|Why|Where|Wherever)\b", re.IGNORECASE)
INVERTED = re.compile(r"Of\b")  # "Of several runs those that ..."; a trailing comment may well begin with "of"


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string that stands alone: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and first line of every block of comments."""
    before = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != before + 1:
                yield token.start[0], token.string.lstrip("#: ")
            before = token.start[0]


def refused(source: str) -> list[str]:
    found = [(line, text) for line, text in docstrings(source) if RELATIVE.match(text) or INVERTED.match(text)]
    found += [(line, text) for line, text in comments(source) if RELATIVE.match(text)]
    return [f"line {line}: {text.splitlines()[0]}" for line, text in sorted(found)]


SHORT = 3  # words


def saying_nothing(source: str) -> list[str]:
    """Functions whose docstring is of so few words that their name says as much; one that is the whole body may be."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and len((ast.get_docstring(node) or "long " * 9).split()) <= SHORT
        if len(node.body) > 1
    ]


@pytest.mark.parametrize("file", FILES)
def test_no_docstring_repeats_the_name_of_a_function(file: str) -> None:
    assert saying_nothing(FILES[file].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", FILES)
def test_no_docstring_and_no_comment_begins_with_a_relative_clause(file: str) -> None:
    assert refused(FILES[file].read_text(encoding="utf-8")) == []


def test_docstrings_that_say_nothing_are_found() -> None:
    source = '''
class Box:
    @property
    def size(self):
        """The size."""
        return 1
    def close(self):
        """Do nothing."""
    def open(self):
        """Open it, or raise."""
        return 2
def weigh():
    """See `scales`."""
    return 3
'''
    assert saying_nothing(source) == ["weigh", "size"]


def test_the_words_that_are_refused_are_found_wherever_they_stand() -> None:
    source = '''"""What a file is."""
class Box:
    """Who has it."""
    size: int
    """How large it is."""
    def open(self):  # which opens it
        """Of the box, its inside."""
        # whose box it is
        # and so on
        return 1  # of the boxes: allowed
    def close(self):
        """Close the box; what is inside stays."""
'''
    assert [each.split(":")[0] for each in refused(source)] == [f"line {n}" for n in (1, 3, 5, 6, 7, 8)]
