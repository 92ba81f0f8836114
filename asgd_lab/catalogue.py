"""What a scenario can name, and what it means: read from its schema, the presets and the models, never listed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from asgd_lab.algorithms import ALGORITHMS, RULES
from asgd_lab.scenario import places, presets


def _choices(*path: str | int) -> dict[str, str]:
    """The mappings that `name` chooses among at this key of the scenario, by that name."""
    place = places.root().walk(path)
    assert place is not None
    return {one["properties"]["name"]["const"]: _line(one["description"]) for one in place.mappings}


def _backends() -> dict[str, str]:
    """They share one mapping, whose `name` says in parentheses what each is."""
    place = places.root().walk(("backend", "name"))
    assert place is not None
    (schema,) = place.options
    return {name: _said_of(name, schema["description"]) for name in schema["enum"]}


def _said_of(name: str, description: str) -> str:
    found = re.search(rf"\b{name} \((.*?)\)", description)
    assert found is not None, f"the scenario's backend.name does not say what {name} is"
    return _line(found.group(1))


def _models() -> dict[str, str]:
    """Ours, with their docstrings; torchvision's; and the user's own. The only part that imports torch."""
    from asgd_lab.tasks import models
    from asgd_lab.tasks.torchvision_import import torchvision

    theirs: Any = torchvision().models
    ours = {name: _line((inspect.getdoc(model) or "").partition("\n\n")[0]) for name, model in models.OURS.items()}
    return {
        **ours,
        "package.module:factory": "your own function that takes num_classes and returns a torch.nn.Module",
        "of torchvision": ", ".join(theirs.list_models(module=theirs)),
    }


def _line(text: str) -> str:
    return " ".join(text.split())


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "algorithms": ALGORITHMS.described,
    "rules": RULES.described,
    "tasks": lambda: _choices("task"),
    "backends": _backends,
    "presets": lambda: {name: presets.read(name).description for name in presets.names()},
    "models": _models,
}
"""By what it lists; what takes longest is last."""
