"""Checks that replicas may share a module, and that a checkpoint holds all state of a learner.

State of a module beside parameters and buffers would be common to replicas that share the module, and would be missing
in other processes and in checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asgd_lab.tasks.bound_module import BoundModule
from asgd_lab.tasks.determinism import repeatable, same, tolerance
from asgd_lab.tasks.network import Network, NetworkLearner
from asgd_lab.tasks.optimizer_state import check_restored
from asgd_lab.tasks.python_state import python_state, shared_state

_STEPS = 3

MakeLearner = Callable[[BoundModule, int, Tensor], NetworkLearner]
"""Makes a learner of a module, a worker and a vector."""


def may_share(network: Network, learner: MakeLearner, device: torch.device) -> bool:
    """Whether two replicas that take turns in one module compute the same bits as in modules of their own."""
    with repeatable(device):
        return _may_share(network, learner, device)


def _may_share(network: Network, learner: MakeLearner, device: torch.device) -> bool:
    one = network.fresh(device)
    before = python_state(one.model)
    together = [learner(one, worker, _vector(network, worker, device)) for worker in range(2)]
    turns = [[each.minibatch(step) for each in together] for step in range(_STEPS)]
    if python_state(one.model) != before:
        return False
    for worker, shared in enumerate(together):
        alone = learner(network.fresh(device), worker, _vector(network, worker, device))
        if [alone.minibatch(step) for step in range(_STEPS)] != [turn[worker] for turn in turns]:
            return False
        if not _same(alone.state() | {"": alone.params}, shared.state() | {"": shared.params}, 0.0):
            return False
    return True


def resumes(network: Network, learner: MakeLearner, device: torch.device) -> bool:
    """Whether a learner in a new module, restored from a trained one's state, continues like the trained one.

    A `ScenarioError` if it is the optimizer that differs.
    """
    near = 0.0 if device.type == "cpu" else tolerance(device)
    vector = _vector(network, 0, device)
    with repeatable(device):
        first, second = (network.fresh(device) for _ in range(2))
        shared = shared_state(first.model)
        before = learner(first, 0, vector)
        for step in range(_STEPS):
            before.minibatch(step)
        after = learner(second, 0, vector.clone())
        after.load({name: value.clone() for name, value in before.state().items()})
        expected, found = (torch.tensor(each.minibatch(_STEPS)) for each in (before, after))
    if shared_state(first.model) != shared:  # another process would not have this change
        return False
    for one, other in zip(before.optimizers, after.optimizers, strict=True):
        check_restored(one, other)
    # State that has no effect yet, such as a count, may have one later.
    alike = same(expected, found, near) and python_state(before.module) == python_state(after.module)
    return alike and _same(before.state() | {"": before.params}, after.state() | {"": after.params}, near)


def _vector(network: Network, worker: int, device: torch.device) -> Tensor:
    """Initial parameters, different for each worker."""
    return network.initial().to(device).mul_(1 + 0.1 * worker)


def _same(one: dict[str, Tensor], other: dict[str, Tensor], near: float) -> bool:
    return one.keys() == other.keys() and all(same(value, other[name], near) for name, value in one.items())
