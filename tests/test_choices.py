"""Nothing asks for an algorithm, a task or a backend by name: read off the source of the whole package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asgd_lab
from asgd_lab.algorithms import ALGORITHMS, RULES, Configuration, Link
from asgd_lab.algorithms.codecs import CODECS, Compression
from asgd_lab.choices import Registry
from asgd_lab.loggers import LOGGERS, Logger
from asgd_lab.scenario.executions import BACKENDS, Execution
from asgd_lab.scenario.tasks import TASKS, Learned

PACKAGE = Path(asgd_lab.__file__).parent
REGISTRIES = (ALGORITHMS, RULES, CODECS, TASKS, BACKENDS, LOGGERS)
OWN = {path for folder in ("algorithms", "loggers") for path in (PACKAGE / folder).glob("*.py")} | {
    PACKAGE / "scenario" / "tasks.py",
    PACKAGE / "scenario" / "executions.py",
}
NAMES = {name for registry in (ALGORITHMS, TASKS, BACKENDS, LOGGERS) for name in registry.names}
CLASSES = {each.__name__ for registry in REGISTRIES for each in registry.ours}


def texts(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def questions(source: str) -> Iterator[str]:
    """Comparisons with a name of a choice, matches on one, and isinstance on its class."""
    for node in ast.walk(ast.parse(source)):
        asked: set[str] = set()
        if (isinstance(node, ast.Compare) and "name" in ast.unparse(node)) or isinstance(node, ast.MatchValue):
            asked = texts(node) & NAMES
        elif isinstance(node, ast.Subscript) and ast.unparse(node.slice).endswith(".name"):
            asked = {ast.unparse(node)} if "algorithm.name" in ast.unparse(node) else set()
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            words = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
            words |= {each.attr for each in ast.walk(node.args[1]) if isinstance(each, ast.Attribute)}
            asked = words & CLASSES
        if asked:
            yield f"line {getattr(node, 'lineno', 0)}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", sorted(set(PACKAGE.rglob("*.py")) - OWN), ids=lambda path: path.stem)
def test_nobody_asks_for_the_name_or_the_class_of_a_choice(path: Path) -> None:
    assert list(questions(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "if config.algorithm.name == 'hogwild': pass",
        "if backend.name not in ('sim', 'inline'): pass",
        "wrong = scenario.task.name != 'timing'",
        "isinstance(task, Timing | Quadratic)",
        "isinstance(task, (int, tasks.Classification))",
        "match x:\n    case 'downpour': pass",
        "make = MADE[config.algorithm.name]",
    ],
)
def test_the_reader_sees_every_way_to_ask(source: str) -> None:
    assert len(list(questions(source))) == 1


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.name)
def test_what_is_registered_is_found_and_described(registry: Registry) -> None:
    assert len(set(registry.names)) == len(registry.ours)
    for name, found in zip(registry.names, registry.ours, strict=True):
        assert registry.find(name) is found
        assert issubclass(found, registry.base)
        assert registry.described()[name]
    assert registry.base in (Configuration, Link, Compression, Learned, Execution, Logger)


@pytest.mark.parametrize("name", ALGORITHMS.names)
def test_the_facts_of_an_algorithm_are_those_of_its_sentence(name: str) -> None:
    keys = {"name": name, "n_sync": 2} | ({"bound": 1} if name == "ssp" else {})
    configuration = ALGORITHMS.find(name).model_validate(keys)
    built = configuration.build(workers=3)
    said = (configuration.collects, configuration.overlaps, configuration.shared, name, 2, configuration.push)
    assert said == (built.gate.collects, built.overlaps, built.shared, built.name, built.n_fetch, built.pushes)


@pytest.mark.parametrize("link", RULES.ours, ids=lambda link: link.__name__)
def test_the_facts_of_a_link_are_those_of_its_rule(link: type[Link]) -> None:
    needed: dict[str, dict[str, Any]] = {"ServerSgd": {"lr": 0.1}, "Momentum": {"beta": 0.9}, "Adagrad": {"lr": 0.1}}
    needed["OuterOptimizer"] = {"optimizer": "SGD", "lr": 0.7}
    one = link.model_validate({"name": RULES.called(link), **needed.get(link.__name__, {})})
    built = one.build(workers=4)
    assert (link.makes, link.averages_round) == (built.yields, built.averages_round)
    # What the optimizer takes is one of its keys.
    assert link.takes == ("any" if RULES.called(link) == "optimizer" else built.eats)
