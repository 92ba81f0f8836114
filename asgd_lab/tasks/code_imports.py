"""Imports of names package.module:name in a scenario: from torch, torchvision and this package, or the user's code."""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from asgd_lab import live_objects
from asgd_lab.errors import ScenarioError, meant
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.torch_settings import preserving_settings
from asgd_lab.tasks.torchvision_import import torchvision
from asgd_lab.trust import Named, is_plugin, is_trusted, outside_here, refusal

# Modules of torch and torchvision whose classes only compute; other modules have loaders, compilers and launchers.
_HOMES = ("torch.nn", "torch.optim", "torchvision.models", "torchvision.ops", "asgd_lab.tasks")


def imported(key: str, name: str, what: str) -> Callable[..., Any]:
    """The callable of that name; a `ScenarioError` at `key` if there is none. `what` is a sentence on its signature.

    A live name may also be that of a task itself, not of its class.
    """
    if live_objects.is_live(name):
        found: Any = live_objects.found(key, name)
        if not callable(found) and key != "task.task":
            raise ScenarioError.at(key, f"{name} is not callable; {what}")
        return found  # type: ignore[no-any-return]
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ScenarioError.at(key, f"'{name}' is not of the form package.module:factory")
    if is_trusted():
        # As `python -m` does, and for good: a module may import its neighbours later.
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        return _found(key, name, what)
    if (known := _known(key, name)) is not None:
        return known
    if not is_plugin(name):
        raise ScenarioError.at(key, refusal([(key, name)]))
    with _elsewhere():
        return _found(key, name, what)


def untrusted(config: Any) -> Named:
    """The code that a task's configuration names and that may not be imported; empty if all is trusted."""
    if is_trusted():
        return []
    named = [(f"task.{key}", getattr(config, key, None)) for key in ("dataset", "model", "loss", "task")]
    named += [
        (f"task.{key}.name", getattr(getattr(config, key, None), "name", None)) for key in ("optimizer", "schedule")
    ]
    found = [
        (key, name)
        for key, name in named
        if name is not None and ":" in name and not live_objects.is_live(name)
        if _known(key, name) is None and not is_plugin(name)
    ]
    return found + untrusted_weights(getattr(config, "model_options", {}))


def untrusted_weights(options: Any) -> Named:
    """The options that make torchvision download trained weights, which it unpickles."""
    if is_trusted():
        return []
    names = ("weights", "pretrained")  # torchvision also takes the second, older name
    asked = [key for key, value in options.items() if key.startswith(names) and value not in (None, False)]
    return [(f"task.model_options.{key}", f"{options[key]} (downloaded and unpickled)") for key in asked]


@preserving_settings()
def _found(key: str, name: str, what: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    try:
        with _here():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ScenarioError.at(key, f"{module_name} cannot be imported: {one_line(error)}") from error
    try:
        found = operator.attrgetter(attribute)(module)
    except AttributeError as error:
        raise ScenarioError.at(
            key, f"{module_name} has no '{attribute}'{meant(attribute, vars(module), 0.6)}"
        ) from error
    if not callable(found):
        raise ScenarioError.at(key, f"{name} is not callable; {what}")
    callable_: Callable[..., Any] = found
    return callable_


def _known(key: str, name: str) -> Callable[..., Any] | None:
    """A network, an optimizer or a loss that torch, torchvision or this package defines; None for other names."""
    module_name, _, attribute = name.partition(":")
    if not _is_at_home(module_name):
        return None
    if module_name.startswith("torchvision"):
        torchvision()  # imports it also where a plain import would fail
    try:
        with _elsewhere():
            module = importlib.import_module(module_name)
    except ImportError:
        return None
    found: Any = getattr(module, attribute, None)
    home = str(getattr(found, "__module__", ""))
    if not _is_at_home(home):
        return None
    is_class = isinstance(found, type)
    match key:
        case "task.optimizer.name":
            fits = is_class and issubclass(found, torch.optim.Optimizer)
        case "task.loss":  # functions of outputs and labels; none of them reads or writes a file
            fits = isinstance(found, types.FunctionType) and home == "torch.nn.functional"
        case "task.model":
            fits = (is_class and issubclass(found, nn.Module)) or _makes_a_network(found, home)
        case _:
            fits = False
    return found if fits else None


def _is_at_home(module_name: str) -> bool:
    return any(module_name == home or module_name.startswith(home + ".") for home in _HOMES)


def _makes_a_network(found: Any, home: str) -> bool:
    """Whether torchvision registers this function as a model, under the function's own name."""
    if not isinstance(found, types.FunctionType) or not home.startswith("torchvision.models"):
        return False
    return found.__name__ in torchvision().models.list_models()


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """Restore the working directory, which an imported module may change: the user's paths are relative to it."""
    here = os.open(".", os.O_RDONLY)
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Import nothing from the current directory inside."""
    before = list(sys.path)
    sys.path[:] = outside_here(before)
    try:
        yield
    finally:
        sys.path[:] = before
