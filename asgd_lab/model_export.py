"""The trained model of a recorded run as a plain module, and as a file that torch loads without this package."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asgd_lab import tasks
from asgd_lab.backends import earlier
from asgd_lab.backends.build import initial_parameters
from asgd_lab.backends.inputs import untrusted
from asgd_lab.backends.settings import settled
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files
from asgd_lab.record.saved_model import saved
from asgd_lab.recorded_code import as_recorded
from asgd_lab.scenario import Document, anchored
from asgd_lab.tasks import datasets
from asgd_lab.tasks.network_task import NetworkTask

_STANDARD = "input_standard"


def trained(run_dir: Path | str, say: Callable[[str], object] = lambda line: None) -> nn.Module:
    """The module of a run with its final parameters, or those of its last checkpoint, in evaluation mode.

    Its buffers are those that the run evaluates the server's parameters with: BatchNorm's statistics are estimated
    again on training samples, unless they are the server's; others are the first worker's. If its inputs were
    standardised, its attribute `input_standard` has `mean` and `deviation`, see `datasets.input_standard`. A
    `ScenarioError` if the run has no network, or if its code is not trusted. `say` is called with a line for each
    changed source.
    """
    with as_recorded(Path(run_dir), say) as (there, manifest):
        return _trained(there, manifest)


@settled()
def _trained(run_dir: Path, manifest: Mapping[str, Any]) -> nn.Module:
    (point,) = Document.read(str(run_dir / "scenario.yaml")).points()
    scenario = anchored(point.scenario)
    if left := untrusted(scenario):
        raise ScenarioError(f"{run_dir}: {tasks.refusal(left)}")
    found = saved(run_dir)
    data = tasks.load(scenario.task)
    task = tasks.build(scenario.task, scenario.seed, data, scenario.workers, checked=True)
    if not isinstance(task, NetworkTask):
        raise ScenarioError(f"{run_dir}: task {scenario.task.name} trains no network; there is no module to export")
    earlier.check_size(run_dir, manifest, task, len(found.params))
    if len(found.params) != task.size:
        message = f"has {len(found.params):,} parameters, and its task now makes {task.size:,}"
        raise ScenarioError(f"{run_dir}: {message}; was its code or its data changed?")
    if scenario.warm_start is not None and task.network.buffers:
        initial_parameters(scenario, task)  # it sets the buffers that training started with
    buffers = {name: torch.from_numpy(value) for name, value in found.buffers.items()}
    module = task.module(torch.from_numpy(found.params), buffers)
    plain: nn.Module = getattr(module, "_orig_mod", module)  # of torch.compile: the plain module
    if (standard := datasets.input_standard(data)) is not None:
        vars(plain)[_STANDARD] = standard
    return plain


def export(run_dir: Path, file: Path, say: Callable[[str], object] = lambda line: None) -> str:
    """Write the module's state_dict to a new file, for torch.load; return a line that says so.

    If the run standardised its inputs, the loaded dict has the attribute `input_standard` of `trained`.
    """
    if os.path.lexists(file):
        raise ScenarioError(f"{file}: exists; give the name of a new file")
    # Without copies, torch would save the whole storage behind each tensor.
    model = trained(run_dir, say)
    state = OrderedDict((name, each.clone()) for name, each in model.state_dict().items())
    hint = ""
    if (standard := vars(model).get(_STANDARD)) is not None:
        vars(state)[_STANDARD] = standard
        hint = f"; its inputs are (x - mean) / deviation, with mean and deviation of torch.load(...).{_STANDARD}"
    with atomic_files.replacing(file) as opened:
        torch.save(state, opened)
    count = sum(each.numel() for each in state.values())
    return f"{file}: {len(state)} tensors, {count:,} numbers; model.load_state_dict(torch.load({str(file)!r})){hint}"
