"""The timing-only task does nothing, and says how much it moves."""

from __future__ import annotations

import math

import torch

from asgd_lab.tasks import build, load
from tests.tasks.configs import Timing


def test_timing_moves_bytes_and_learns_nothing() -> None:
    task = build(Timing(size_bytes=243_860_896), 0, load(Timing()))
    assert (task.size, task.size_bytes) == (0, 243_860_896)
    assert task.initial().shape == (0,)
    learner = task.learner(5, torch.empty(0))
    learner.warm_up()
    learner.reset_momentum()
    assert all(math.isnan(value) for value in learner.minibatch(3))
    assert task.evaluate(torch.empty(0)) == []
