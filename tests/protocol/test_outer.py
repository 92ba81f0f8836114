"""Optimizers of torch.optim as the server's rule: the bits of torch, state in two copies, and refusals in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asgd_lab.algorithms.rules import OuterOptimizer
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.messages import PushRequest
from asgd_lab.protocol.outer import stepping
from asgd_lab.protocol.parameters import Parameters
from tests.backends.scenarios import scenario

from .toys import Unwritten

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.7},
    "Nesterov": {"optimizer": "SGD", "lr": 0.7, "momentum": 0.9, "nesterov": True},
    "AdamW": {"lr": 0.01},
    "AMSGrad": {"optimizer": "Adam", "lr": 0.01, "amsgrad": True},
    "Adagrad": {"lr": 0.1},
    "Adadelta": {},
    "RMSprop": {"lr": 0.01, "centered": True, "momentum": 0.5},
    "NAdam": {"lr": 0.01},
    "RAdam": {"lr": 0.01},
    "Adamax": {"lr": 0.01},
    "ASGD": {"lr": 0.01},
    "Rprop": {"lr": 0.01},
    "Adafactor": {"lr": 0.01},
}
P, VERSIONS = 37, 6


def link(name: str, **more: Any) -> OuterOptimizer:
    return OuterOptimizer.model_validate({"name": "optimizer", "optimizer": name, **OPTIMIZERS[name], **more})


@pytest.mark.parametrize("of", ["delta", "gradient"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_server_steps_as_torch_does_to_the_bit(name: str, of: str) -> None:
    random = torch.Generator().manual_seed(13)
    start = torch.randn(P, generator=random)
    mailbox = {0: torch.zeros(P)}
    parameters = Parameters(start, link(name, of=of).build(1), mailbox, Unwritten(start))
    theirs = torch.nn.Parameter(start.clone())
    keys = link(name)
    options = keys.options
    kind = getattr(torch.optim, keys.optimizer)
    try:
        optimizer = kind([theirs], **options, fused=True)
    except (TypeError, RuntimeError):
        optimizer = kind([theirs], **options)
    for number in range(1, VERSIONS + 1):
        mailbox[0].copy_(torch.randn(P, generator=random))
        before = [tensor.clone() for tensor in (parameters.current, *parameters.state)]
        old = [parameters.current, *parameters.state]
        parameters.step([PushRequest(0, 1, number, number - 1, 1, 0.0, 0.0)])
        assert all(torch.equal(now, then) for now, then in zip(old, before, strict=True)), "nothing is torn"
        theirs.grad = -mailbox[0] if of == "delta" else mailbox[0].clone()
        optimizer.step()
        assert torch.equal(parameters.current, theirs.data)


class Counts(torch.optim.SGD):
    """Keeps a number of Python's."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1


class Decays(torch.optim.SGD):
    """Changes its rate."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        self.param_groups[0]["lr"] *= 0.5


@pytest.mark.parametrize(("kind", "said"), [(Counts, "it keeps a int"), (Decays, "changes its own settings")])
def test_what_a_recovering_server_could_not_know_is_refused(kind: type[torch.optim.Optimizer], said: str) -> None:
    def make(parameters: list[Tensor]) -> torch.optim.Optimizer:
        return kind(parameters, lr=0.1)  # type: ignore[call-arg]

    with pytest.raises(ScenarioError, match=said):
        stepping(make, "delta")


def test_a_keyword_that_torch_does_not_know_is_named(tmp_path: Path) -> None:
    rule = [{"name": "optimizer", "optimizer": "SGD", "lr": 0.7, "momentun": 0.9}]
    stated = scenario(algorithm={"name": "asgd", "n_sync": 2, "rule": rule})
    with pytest.raises(ScenarioError, match="SGD takes no 'momentun'; did you mean 'momentum'") as raised:
        execute(stated, tmp_path / "run")
    assert raised.value.key == "algorithm.rule.0"


@pytest.mark.parametrize("name", ["Nesterov", "AdamW"])
def test_an_outer_optimizer_gives_the_same_bits_on_every_backend_and_in_a_replay(name: str, tmp_path: Path) -> None:
    rule = [{"name": "optimizer", "optimizer": name, **OPTIMIZERS[name]}]
    sums = set()
    for backend in ("inline", "sim", "process"):
        stated = scenario(
            algorithm={"name": "sync_sgd", "n_sync": 2, "rule": ["mean", *rule]}, backend=backend, workers=2
        )
        sums.add(execute(stated, tmp_path / backend)["params_sha256"])
    assert len(sums) == 1
    assert repeat(stated, tmp_path / "process").difference is None
