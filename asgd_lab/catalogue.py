"""The names that a scenario can use, with their meaning: read from the registries, the presets and the models."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from asgd_lab.algorithms import ALGORITHMS, RULES
from asgd_lab.algorithms.codecs import CODECS
from asgd_lab.errors import ScenarioError, among, shown
from asgd_lab.loggers import LOGGERS
from asgd_lab.scenario import carried, json_schema, presets
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
    "loggers": LOGGERS.described,
    "presets": lambda: {name: presets.read(name).description for name in presets.names()},
    "models": _models,
}
"""The lists by their titles; the slowest one is last."""


def available(kind: str) -> dict[str, str]:
    """The names of one kind that a scenario can use, with what they mean.

    >>> import asgd_lab
    >>> sorted(asgd_lab.available("codecs"))
    ['cast']

    Kinds are scenarios, algorithms, rules, codecs, tasks, backends, loggers, presets and models; only models import
    torch.
    """
    if not isinstance(kind, str) or kind not in CATALOGUE:
        raise ScenarioError(f"kind: there is no kind {shown(kind)}{among(kind, CATALOGUE)}")
    return CATALOGUE[kind]()


def preset(*names: str) -> dict[str, Any]:
    """The values of a named machine, for a scenario's `hardware`; of several, later ones over earlier ones.

    >>> import asgd_lab
    >>> asgd_lab.preset("laptop")["link"]
    {'latency_s': 5e-05}

    Times are in seconds, rates in bytes per second, as in `hardware`. A `ScenarioError` if no preset has that name.
    """
    known = presets.names()
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ScenarioError(f"preset: there is no preset {shown(name)}{among(name, known)}")
    filled = presets.filled({"preset": list(names)})
    return copy.deepcopy({key: value for key, value in filled.items() if key != "preset"})


def schema() -> dict[str, Any]:
    """The JSON Schema of a scenario, for editors and for checks without this package."""
    return json_schema()
