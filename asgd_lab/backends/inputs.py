"""Digests of a run's inputs beside its scenario: data, the parameters of a warm start, the user's sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from asgd_lab import choices, live_objects, tasks
from asgd_lab.record import code_sources
from asgd_lab.record.saved_model import SavedModel, saved
from asgd_lab.record.summary import params_sha256
from asgd_lab.scenario import Scenario
from asgd_lab.trust import Named

_KEYS = {"data": ("task.data_folder", "task.tokenizer"), "warm_start": ("warm_start.run",)}


def inputs(scenario: Scenario, *, again: bool = False) -> dict[str, Any]:
    """The inputs for the manifest. Only imported code is included: call it after the task has been built.

    Data are those that this process read last, and trained on; with `again` they are read now.
    """
    code = {**code_sources.used(_named(scenario)), **live_objects.recorded(scenario)}
    found: dict[str, Any] = {"folder": os.getcwd(), "code": code}
    data = tasks.facts_of(scenario.task, again=again)
    if data is not None:
        found["data"] = data
    warm = scenario.warm_start
    if warm is not None and warm.run is not None and scenario.task.learns:
        found["warm_start"] = {"run": warm.run, "params_sha256": _digest(saved(warm.run))}
    return found


def untrusted(scenario: Scenario) -> Named:
    """The code in a scenario that may not be imported; empty if all is trusted."""
    return [*tasks.untrusted(scenario.task), *choices.unread(scenario)]


def _named(scenario: Scenario) -> list[Any]:
    """Values that contain all names package.module:Name of the scenario's code."""
    return [scenario.task.model_dump(), scenario.algorithm.model_dump(), *choices.brought(scenario)]


def _digest(start: SavedModel) -> str:
    """The hash of the parameters, and of the buffers if there are any."""
    of_params = params_sha256(start.params)
    if not start.buffers:
        return of_params
    named = [(name, value.shape, value.tobytes()) for name, value in sorted(start.buffers.items())]
    return hashlib.sha256(repr((of_params, named)).encode()).hexdigest()


def changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for data or a warm start that differs from the recorded one; inputs that were not recorded may differ."""
    lines = []
    if "data" in recorded and recorded["data"]["sha256"] != (now.get("data") or {}).get("sha256"):
        lines.append("task.dataset: the data have changed since")
    old, new = recorded.get("warm_start"), now.get("warm_start")
    if old is not None and (new is None or old["params_sha256"] != new["params_sha256"]):
        lines.append(f"warm_start.run: the parameters in {old['run']} have changed since")
    return lines


def moved(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Keys whose paths may differ, because their contents are the same."""
    same = [part for part in _KEYS if part in recorded and part in now and not changes(recorded, now)]
    return {key for part in same for key in _KEYS[part]}
