"""Whether a module keeps what it should not: replicas try to share one, in turns and one after the other, or go on in
another.

What a module keeps beside parameters and buffers, replicas that share it would share, and processes would not.
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
"""A learner in that module, of that worker, over that vector."""


def may_share(network: Network, learner: MakeLearner, device: torch.device) -> bool:
    """Whether two replicas that take turns in one module get the bits that each gets in a module of its own."""
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
    """Whether a learner in a new module, with the state of one that has trained, goes on as that one does.

    A `ScenarioError` where it is the optimizer that does not.
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
    if shared_state(first.model) != shared:  # which another process would not have
        return False
    check_restored(before.optimizer, after.optimizer)
    # A count may change nothing yet, and something later.
    alike = same(expected, found, near) and python_state(before.module) == python_state(after.module)
    return alike and _same(before.state() | {"": before.params}, after.state() | {"": after.params}, near)


def _vector(network: Network, worker: int, device: torch.device) -> Tensor:
    """Others than the other's."""
    return network.initial().to(device).mul_(1 + 0.1 * worker)


def _same(one: dict[str, Tensor], other: dict[str, Tensor], near: float) -> bool:
    return one.keys() == other.keys() and all(same(value, other[name], near) for name, value in one.items())
