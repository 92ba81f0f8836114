"""YAML 1.2 text to plain data and the line of every key; ruamel.yaml reads; nothing here knows what a scenario is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from asgd_lab.errors import ScenarioError, shortened
from asgd_lab.scenario.keys import Path, dotted

_TYPED = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}
_KNOWN = _TYPED | {f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "value", "merge", "seq", "map")}
_MERGE = "tag:yaml.org,2002:merge"
MOST_LEVELS = 50  # a mapping that contains itself through an alias is deeper than any
MOST_CHARACTERS = 1_000_000  # of a text, and of its data with all aliases resolved
MOST_NUMBER = 10**300  # a whole number beyond is none of a scenario's, and has more digits than Python writes


@dataclass(slots=True)
class Source:
    """A text's data, and the 1-based (line, column) of the key or the list item at each path."""

    where: Callable[[int], str]  # maps a line to the beginning of an error message
    data: Any = None
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def parse(self, text: str) -> Source:
        """Read the text; every error is one line with place and fault."""
        if len(text) > MOST_CHARACTERS:
            raise self._error(1, f"has more than {MOST_CHARACTERS:,} characters")
        yaml = YAML(typ="safe", pure=True)
        yaml.composer.warn_double_anchors = False  # YAML lets a later anchor of the same name take over
        try:
            root = yaml.compose(text)
            if _characters(root, {}) > 2 * MOST_CHARACTERS:  # with quotes and brackets that may not be there
                raise self._error(1, f"has more than {MOST_CHARACTERS:,} characters, once its aliases are resolved")
            self.data = self._value(yaml, root, ())
        except MarkedYAMLError as error:
            raise self._error(*_explained(error)) from None
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise self._error(line, f"has a character that YAML does not allow (U+{error.character:04X})") from None
        except YAMLError as error:
            raise self._error(1, "is not valid YAML; " + " ".join(str(error).split())) from None
        except RecursionError:
            raise self._error(1, "is nested too deeply") from None
        return self

    def _error(self, line: int, message: str, path: Path = ()) -> ScenarioError:
        key = shortened(dotted(path), 120)
        return ScenarioError.at(key, f"{self.where(line)}: " + (f"{key}: " if key else "") + message)

    def _value(self, yaml: YAML, node: Node | None, path: Path) -> Any:
        if node is None:
            return None
        line = node.start_mark.line + 1
        self.positions.setdefault(path, (line, node.start_mark.column + 1))
        if len(path) > MOST_LEVELS:
            raise self._error(line, "is nested too deeply, or contains itself", path[:3])
        if str(node.tag) not in _KNOWN:
            raise self._error(line, f"has the tag {node.tag}; tags are not used in scenarios", path)
        if isinstance(node, MappingNode):
            return {key: self._value(yaml, child, (*path, key)) for key, child in self._items(node, path)}
        if isinstance(node, SequenceNode):
            return [self._value(yaml, child, (*path, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self._scalar(yaml, node, path)

    def _items(self, node: MappingNode, path: Path, *, merged: bool = False) -> Iterator[tuple[str, Node]]:
        """The mapping's keys in file order; keys merged by `<<` come last, unless they are written out."""
        first: dict[str, int] = {}
        brought: list[Node] = []
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                brought += child.value if isinstance(child, SequenceNode) else [child]
                continue
            if not isinstance(key_node, ScalarNode) or str(key_node.tag) in _TYPED:
                raise self._error(
                    line, f"has a key that is not a word ({shortened(repr(key_node.value), 80)}); quote it", path
                )
            key = key_node.value
            if key in first:
                raise self._error(line, f"is given twice, first on line {first[key]}; keep one", (*path, key))
            first[key] = line
            if not merged or (*path, key) not in self.positions:
                self.positions[*path, key] = (line, key_node.start_mark.column + 1)
            yield key, child
        for other in brought:
            if not isinstance(other, MappingNode):
                raise self._error(other.start_mark.line + 1, "'<<' takes an alias of a mapping", path)
            for key, child in self._items(other, path, merged=True):
                if key not in first:
                    first[key] = other.start_mark.line + 1
                    yield key, child

    def _scalar(self, yaml: YAML, node: ScalarNode, path: Path) -> Any:
        if str(node.tag) in _TYPED:
            line = node.start_mark.line + 1
            try:
                value = yaml.constructor.construct_object(node)
            except (ValueError, OverflowError, KeyError):
                raise self._error(line, "is not a value that can be read", path) from None
            if isinstance(value, int) and abs(value) >= MOST_NUMBER:
                raise self._error(line, "has more than 300 digits; no number of a scenario is as large", path)
            return value
        # In YAML 1.2 .5e3 is a number; ruamel.yaml requires a sign in the exponent.
        if node.style is None and re.fullmatch(r"[-+]?\.[0-9]+[eE][0-9]+", node.value):
            return float(node.value)
        return node.value  # text, also if it would be a date in YAML 1.1


def _characters(node: Node | None, known: dict[int, int]) -> int:
    """The length of the node with all aliases resolved, computed without resolving them."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = 0  # for a node that contains itself; another check refuses it
        if isinstance(node, ScalarNode):
            length = len(node.value)
        elif isinstance(node, MappingNode):
            length = sum(_characters(key, known) + _characters(value, known) for key, value in node.value)
        else:
            length = sum(_characters(each, known) for each in node.value)
        known[id(node)] = length + 2
    return known[id(node)]


def _explained(error: MarkedYAMLError) -> tuple[int, str]:
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or error.context)
    line = mark.line + 1 if mark else 1
    if "'\\t'" in problem:
        return line, "is indented with a tab; use spaces"
    if "another document" in problem:
        return line, "starts a second document; a scenario is one"
    if "undefined alias" in problem:
        return line, f"is not valid YAML: {problem}; define it before with &"
    return line, f"is not valid YAML: {problem}; look at indentation, colons, brackets and quotes"
