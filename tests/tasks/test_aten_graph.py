"""A record does again what a function of tensors did, with other contents."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from asgd_lab.tasks.aten_graph import record


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_record_is_the_function_for_other_contents() -> None:
    constant = numbers(4, seed=9)

    def function(weight: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
        leaf = weight.detach().requires_grad_()
        hidden = (inputs @ leaf + constant).mul_(2.0)
        hidden[:, 1:] += 1.0  # in place, by way of a view
        values, places = hidden.max(1)
        (gradient,) = torch.autograd.grad((values**2).sum(), leaf)
        return gradient, torch.stack([values.detach(), places.float()]), inputs

    first = numbers(3, 4), numbers(5, 3, seed=1)
    recorded, outputs = record(function, first)
    for found, expected in zip(outputs, function(*first), strict=True):
        assert torch.equal(found, expected)
    del outputs
    gc.collect()
    other = numbers(3, 4, seed=2), numbers(5, 3, seed=3)
    with torch.no_grad():
        again = recorded(*other)
    for found, expected in zip(again, function(*other), strict=True):
        assert torch.equal(found, expected)
    constant += 1.0
    assert torch.equal(recorded(*other)[1], function(*other)[1])


def test_a_record_keeps_apart_what_lives_one_after_another() -> None:
    def function(numbers: Tensor) -> tuple[Tensor, ...]:
        for value in range(30):
            numbers = numbers * 0.5 + torch.tensor([value, 1.0])
        return (numbers,)

    recorded, _ = record(function, [torch.zeros(2)])
    assert torch.equal(recorded(torch.ones(2))[0], function(torch.ones(2))[0])


def test_a_record_decides_nothing() -> None:
    def function(numbers: Tensor) -> tuple[Tensor, ...]:
        return (numbers + 1 if times.pop() else numbers - 1,)

    times = [False, True]
    recorded, (found,) = record(function, [torch.zeros(2)])
    assert found.tolist() == [1.0, 1.0]
    assert recorded(torch.ones(2))[0].tolist() == [2.0, 2.0]
    assert times == [False]


def test_what_fails_while_it_is_recorded_fails_as_ever() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        record(lambda one, other: (one @ other,), [torch.zeros(2, 3), torch.zeros(2, 3)])
    assert (torch.ones(1) + 1).item() == 2.0
