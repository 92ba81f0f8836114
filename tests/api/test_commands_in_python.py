"""All that the command line does can be done from Python: its commands and options, enumerated from its own tree."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import typer.main

import asgd_lab
from asgd_lab.app.cli import app

TRUST = "with trusting(False)"  # without --trust; the caller of a function is trusted
CHANGED = "changes"
PLACES: dict[str, dict[str, str]] = {
    "": {"--version": "__version__"},
    "run": {
        "SCENARIO": "run(scenario)", "--backend": "run(changes)", "--out": "run(out)", "--seed": "run(changes)",
        "--seeds": "sweep(seeds)", "--jobs": "sweep(jobs)", "--resume": "run(resume)", "--trust": TRUST,
        "--set": "run(changes)",
    },
    "compare": {
        "SCENARIO": "compare(scenario)", "--out": "compare(out)", "--repeats": "compare(repeats)", "--trust": TRUST,
        "--set": "compare(changes)",
    },
    "calibrate": {
        "SCENARIO": "calibrate(scenario)", "--file": "Calibration.save(file)", "--out": "calibrate(out)",
        "--trust": TRUST, "--set": "calibrate(changes)",
    },
    "watch": {"RUN_DIR": "watch(run)"},
    "replay": {"RUN_DIR": "replay(run)", "--trust": TRUST},
    "export": {"RUN_DIR": "Run.open(path)", "FILE": "Run.export(file)", "--trust": TRUST},
    "tensorboard": {"DIR": "Run.open(path)", "--out": "Run.tensorboard(out)"},
    "explain": {
        "RUN_DIR": "explain(run)", "--doses": "explain(doses)", "--rates": "explain(rates)",
        "--seeds": "explain(seeds)", "--causes": "explain(causes)", "--rules-see": "explain(rules_see)",
        "--metric": "explain(metric)", "--out": "explain(out)", "--trust": TRUST,
    },
    "report": {"DIR": "report(of)", "--out": "report(out)"},
    "validate": {"SCENARIO": "validate(scenario)", "--trust": TRUST, "--set": "validate(changes)"},
    "schema": {},
    "new": {"FILE": "new(file)", "--from": "new(source)"},
    "list": {"[KIND]": "available(kind)"},
}  # fmt: skip
FUNCTIONS = {"schema": "schema", "list": "available"}  # others are in their options
IN_BOTH = ("--help", "--install-completion", "--show-completion")  # of a shell, not of this package


def tree() -> dict[str, dict[str, Any]]:
    """The options and arguments of each command, as its help writes them."""
    root: Any = typer.main.get_command(app)
    commands = {"": root, **root.commands}
    return {name: {_written(param): param for param in command.params} for name, command in commands.items()}


def _written(param: Any) -> str:
    options = [each for each in param.opts if each.startswith("--")]
    return str(options[0] if options else param.metavar or f"[{param.name.upper()}]")


TREE = tree()


@pytest.mark.parametrize("command", TREE)
def test_every_command_and_option_has_a_place_in_python(command: str) -> None:
    said = {*TREE[command]} - {*IN_BOTH}
    assert said == {*PLACES[command]}
    for place in PLACES[command].values():
        if place != TRUST:
            assert exists(place), place


def exists(place: str) -> bool:
    """Whether the public interface has this function with this parameter, or this name."""
    found = re.fullmatch(r"([\w.]+)(?:\((\w+)\))?", place)
    assert found is not None
    value: Any = asgd_lab
    for part in found[1].split("."):
        value = getattr(value, part)
    return found[2] is None or found[2] in inspect.signature(value).parameters


def test_the_table_names_no_command_that_is_not_there() -> None:
    assert set(PLACES) == set(TREE)


def test_what_is_trusted_is_chosen_around_a_call() -> None:
    assert exists("trusting(is_trusted)")
