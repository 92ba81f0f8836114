"""The names that a scenario can use, with their meaning: read from the registries, the presets and the models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from asgd_lab.algorithms import ALGORITHMS, RULES
from asgd_lab.algorithms.codecs import CODECS
from asgd_lab.scenario import carried, presets
from asgd_lab.scenario.executions import BACKENDS
from asgd_lab.scenario.tasks import TASKS


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
    "scenarios": carried.described,
    "algorithms": ALGORITHMS.described,
    "rules": RULES.described,
    "codecs": CODECS.described,
    "tasks": TASKS.described,
    "backends": BACKENDS.described,
    "presets": lambda: {name: presets.read(name).description for name in presets.names()},
    "models": _models,
}
"""The lists by their titles; the slowest one is last."""
