"""Each key of the run, its hardware and its faults changes the run, or is refused, or a line says that it does nothing.

A key works beside some keys and not beside others, so each is tried in several scenarios. Values that say the same as
the default, and limits that are not reached, are silent (see `scenario.without_effect`), and so are not among these.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from asgd_lab.algorithms import ALGORITHMS
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.tasks import TASKS
from tests.whole import sample

from . import test_keys_do_something as learning

BASE: dict[str, Any] = {
    "name": "keys", "task": {"name": "timing", "size_bytes": 100_000}, "algorithm": {"name": "asgd", "n_sync": 2},
    "workers": 3, "budget": {"minibatches": 60}, "backend": {"name": "sim"},
    "hardware": {"compute": {"step_s": 0.001, "distribution": "lognormal"}},
}  # fmt: skip
COSTS = {
    "hardware.link": {"latency_s": 0.0002, "bandwidth_bytes_per_s": 1e8},
    "hardware.server": {"push_s": 0.0003, "fetch_s": 0.0002},
    "hardware.client": {"push_s": 1e-4}, "hardware.staging": {"latency_s": 1e-4},
}  # fmt: skip
BOWL: dict[str, Any] = {
    "name": "quadratic", "curvature": [1.0, 0.3], "noise": 0.5, "optimizer": {"name": "SGD", "lr": 0.05},
}  # fmt: skip
CALM = {key: value for key, value in BOWL.items() if key != "noise"}
KILL = {"name": "kill", "worker": 1, "at_s": 0.005}
TWO = [{"name": "a", "workers": 1, "speed": 2.0}, {"name": "b"}]
TIMING: dict[str, dict[str, Any]] = {
    "no costs": {},
    "costs": COSTS,
    "crashes": COSTS | {"faults": {"mean_time_between_failures_s": 0.01, "mean_time_to_repair_s": 0.004}},
    "a kill": {"faults": {"schedule": [KILL]}},
    "a death": {"faults": {"schedule": [KILL], "on_death": "continue"}},
    "lock-step": COSTS | {"algorithm": {"name": "sync_sgd", "n_sync": 2}},
    "a shared link": COSTS | {"hardware.link": {"bandwidth_bytes_per_s": 1e8, "shared": True}},
    "a host": COSTS | {"hardware.host": {"workers": 3, "cores": 1}},
    "a device": COSTS | {"hardware.device": {"workers": 3}},
    "groups": COSTS | {"hardware.groups": TWO},
    "cores": COSTS | {"hardware.cores": 2},
    "two servers": COSTS | {"hardware.server": {"count": 2, "push_s": 0.0003}},
}
LEARNING: dict[str, dict[str, Any]] = {
    "learning": {"task": BOWL} | COSTS,
    "learning without noise": {"task": CALM} | COSTS,
    "inline": {"task": BOWL, "backend": {"name": "inline"}},
    "downpour": COSTS | {"task": BOWL, "algorithm": {"name": "downpour", "n_fetch": 4, "n_push": 2}},
}
CONTEXTS = TIMING | LEARNING
OF_A_RUN: dict[str, list[Any]] = {
    "workers": [2], "budget.minibatches": [30], "budget.updates": [8, 10**6], "budget.seconds": [0.005],
    "budget.target_window": [7], "budget.target": [{"split": "train", "metric": "loss", "below": 0.6}],
    "budget.early_stop": [{"split": "train", "metric": "loss", "patience": 1}],
    "budget.target_error": [0.5], "warm_start.minibatches": [5],
    "warm_start.run": ["nowhere"], "evaluate.every_minibatches": [10], "evaluate.every_steps": [4],
    "backend.numerics": ["batched"], "backend.distances": [True], "backend.deterministic": [True],
    "backend.checkpoint.every_s": [1.0], "backend.checkpoint.every_updates": [5], "backend.digest_every_updates": [5],
}  # fmt: skip
OF_HARDWARE: dict[str, list[Any]] = {
    "compute.cv": [0.5], "compute.distribution": ["exponential"], "compute.step_s": [0.002],
    "compute.samples_s": [[0.001]], "compute.run": ["nowhere"], "speeds": [[1.0, 0.5], [1, 2, 3, 4]],
    "slow_phases": [{"every_s": 0.01, "length_s": 0.01, "factor": 3}], "preset": ["laptop"],
    "device.workers": [3], "device.memory_bytes": [1], "device.vectors": [5], "device.activations_bytes": [7],
    "host.workers": [3], "host.bandwidth_bytes_per_s": [1e7],
    "staging.latency_s": [0.001], "staging.to_host_bytes_per_s": [1e7], "staging.to_device_bytes_per_s": [1e7],
    "client.push_s": [0.001], "client.fetch_s": [0.001],
    "link.latency_s": [0.001], "link.bandwidth_bytes_per_s": [1e7], "link.up_bytes_per_s": [1e7],
    "link.down_bytes_per_s": [1e7], "link.shared": [True], "link.flow_bytes_per_s": [1e6],
    "groups": [[{"name": "a", "workers": 1}, {"name": "b"}]],
    "links": [[{"group": "a", "latency_s": 0.003}], [{"group": "a", "shared": True}]],
    "server.push_s": [0.001], "server.fetch_s": [0.001], "server.push_bytes_per_s": [1e8],
    "server.fetch_bytes_per_s": [1e8], "server.distribution": ["exponential"], "server.one_sided_fetch": [True],
    "server.count": [2], "server": [{"count": 2, "independent": True}, {"one_sided_fetch": True}],
    "server.bandwidth_bytes_per_s": [1e7],
}  # fmt: skip
OF_FAULTS: dict[str, list[Any]] = {
    "on_death": ["continue", "stop"], "mean_time_to_repair_s": [0.01], "mean_time_between_failures_s": [0.004],
    "silent_s": [20.0], "on_not_finite": ["stop"],
    "schedule": [
        [KILL, KILL],
        [{**KILL, "repair_s": 0.002}],
        [{**KILL, "repair_s": 0.002}, {**KILL, "at_s": 0.006}],
        [{**KILL, "at_s": 0.006}, {**KILL, "repair_s": 0.002}],
        [{**KILL, "repair_s": 0.02}, {"name": "stop", "worker": 1, "at_s": 0.006, "until_s": 0.01}],
        [{**KILL, "repair_s": 0.02}, {"name": "slow", "worker": 1, "at_s": 0.006, "until_s": 0.01, "factor": 2.0}],
        [{"name": "slow", "worker": 0, "at_s": 0.001, "until_s": 0.01, "factor": 3.0}],
        [{"name": "slow", "worker": 0, "at_s": 0.001, "until_s": 0.01, "factor": 1.0}],
        [{"name": "stop", "worker": 0, "at_s": 0.0012, "until_s": 0.01}],
        [{"name": "stop", "worker": 0, "at_s": 0.0012, "until_s": 0.01}] * 2,
        [{"name": "server_down", "at_s": 0.001, "for_s": 0.01}],
        [{"name": "server_down", "at_s": 0.001, "for_s": 0.01}] * 2,
    ],
}  # fmt: skip
OF_LEARNING: dict[str, list[Any]] = {
    "seed": [5], "task.noise": [1.0], "task.batch_size": [4], "task.start": [2.0], "task.curvature": [[1.0, 0.5]],
    "task.optimizer": [
        {"name": "SGD", "lr": 0.05, "momentum": 0.9}, {"name": "SGD", "lr": 0.05, "dampening": 0.9}, {"name": "Adam"},
    ],
    "task.schedule": [
        {"name": "constant", "warmup": 1}, {"name": "constant", "clock": "versions"},
        {"name": "constant", "factor": 0.5}, {"name": "constant", "final": 0.5}, {"name": "constant", "length": 5},
        {"name": "step", "every": 5}, {"name": "step", "every": 5, "final": 0.5}, {"name": "step", "every": 10**6},
        {"name": "step", "every": 5, "factor": 1.0}, {"name": "cosine", "length": 50},
        {"name": "cosine", "length": 50, "final": 1.0}, {"name": "linear", "length": 50, "final": 1.0},
        {"name": "linear", "length": 50, "factor": 0.5}, {"name": "linear", "length": 50, "warmup": 1},
    ],
    "algorithm.momentum_at_fetch": ["reset"], "algorithm.push": ["gradient"], "algorithm.codec": ["cast"],
    "algorithm.rule": [
        [{"name": "scale", "factor": 0.5}], [{"name": "momentum", "beta": 0, "nesterov": True}],
        [{"name": "optimizer", "optimizer": "SGD", "lr": 1.0, "dampening": 0.5}],
    ],
}  # fmt: skip
RUN = OF_A_RUN | {f"hardware.{key}": values for key, values in OF_HARDWARE.items()}
RUN |= {f"faults.{key}": values for key, values in OF_FAULTS.items()}
# Other tests' subject, or without a claim that a run changes.
ELSEWHERE = {
    "name", "description", "sweep", "task.name", "algorithm.name", "backend.name", "record",  # which rows are kept
    "figure",  # what is drawn of finished runs
    "report",  # the page about finished runs
    "log",  # tests/loggers: what loggers get, and that they change nothing
    "backend.device",  # a file for real devices is simulated as it is; on process the device is the run
    "backend.checkpoint.keep", "evaluate.parameters",  # which files, which rows
    "hardware.cores", "hardware.host.cores",  # limits, which may not be reached; contexts here
    "faults.detect_s",  # a server that waits for nobody does not notice
    "hardware.server.independent",  # stated with count
    "task.step_s",  # needed by task timing where the hardware states none
    "task.dataset", "task.dataset_options", "task.model_options", "task.loss", "task.task", "task.options",  # own code
    "task.local",  # own code too
    "task.data_folder",  # tests/cli/test_warnings.py
    "algorithm.n_fetch", "algorithm.n_push",  # "rhythm" there
}  # fmt: skip


def cases() -> Iterator[tuple[str, str, Any]]:
    for context in CONTEXTS:
        for key, values in (RUN | (OF_LEARNING if context in LEARNING else {})).items():
            yield from ((context, key, value) for value in values)


def changed(stated: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(stated)
    at = found
    *parts, last = key.split(".")
    for part in parts:
        at = at.setdefault(part, {})
    at[last] = value
    return found


@functools.cache
def scenario_of(context: str) -> dict[str, Any]:
    stated = BASE
    for key, value in CONTEXTS[context].items():
        stated = changed(stated, key, value)
    return stated


def outcome(stated: dict[str, Any]) -> tuple[str, list[str]]:
    """A digest of the tables, parameters and summary of the run, and its warnings; or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        try:
            summary = execute(Scenario.model_validate(stated), path)
        except (ScenarioError, ValueError, RunFailed) as error:
            return f"{type(error).__name__}: {error}", []
        lines = summary.pop("warnings")
        kept = json.dumps(summary, sort_keys=True, default=str).encode()
        tables = b"".join(table.read_bytes() for table in sorted(path.glob("*.parquet")))
        return hashlib.sha256(kept + tables).hexdigest(), lines


base = functools.cache(lambda context: outcome(scenario_of(context)))


@pytest.mark.parametrize(("context", "key", "value"), sample(cases(), 40))
def test_a_key_changes_the_run_or_a_line_says_why_not(context: str, key: str, value: Any) -> None:
    stated = changed(scenario_of(context), key, value)
    before, _ = base(context)
    assert ":" not in before, before
    if stated == scenario_of(context):
        return
    after, told = outcome(stated)
    about = {line.split(": ")[0] for line in told}
    if not any(each.startswith(key) or key.startswith(each) for each in about):
        assert after != before, "the key does nothing, and no line says so"


def keys_of(model: Any, under: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        parts = [each for each in (field.annotation, *getattr(field.annotation, "__args__", ())) if is_part(each)]
        if parts and under != "hardware.slow_phases":
            yield from (key for part in parts for key in keys_of(part, f"{under}{name}."))
        else:
            yield f"{under}{name}"


def is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def test_every_key_of_a_scenario_is_tried() -> None:
    """A new key fails here until it has two values in a table."""
    known = set(keys_of(Scenario, "")) - {"task", "algorithm"}
    tasks = [each for each in TASKS.ours if TASKS.called(each) in ("quadratic", "classification", "timing")]
    for choices, name in ((tasks, "task"), (ALGORITHMS.ours, "algorithm")):
        known |= {f"{name}.{key}" for each in choices for key in each.model_fields}
    there = {f"task.{key}" for key in learning.TASK} | {f"algorithm.{key}" for key in learning.ALGORITHM}
    tried = set(RUN) | set(OF_LEARNING) | there | ELSEWHERE
    missing = {key for key in known if not any(key == each or key.startswith(each + ".") for each in tried)}
    assert missing == set()
