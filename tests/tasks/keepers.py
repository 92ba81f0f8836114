"""Optimizers that keep what they know in every place that an optimizer may, and in some where it is lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor


class Keeper(torch.optim.Optimizer):
    """Plain descent by lr, which is changed by whatever `remember` gives."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            self.begin(group)
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.sub_(weight.grad, alpha=group["lr"] / (1.0 + self.remember(group, weight)))

    def begin(self, group: dict[str, Any]) -> None:
        pass

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        return 0.0


class CountInGroup(Keeper):
    """As schedule-free optimizers and Prodigy count their steps."""

    def begin(self, group: dict[str, Any]) -> None:
        group["k"] = group.get("k", 0) + 1

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        return float(group["k"])


class ChangesItsRate(Keeper):
    def begin(self, group: dict[str, Any]) -> None:
        group["lr"] *= 0.97


class TensorInGroup(Keeper):
    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        group["d"] = group.get("d", torch.tensor(1 / 3, dtype=torch.float64)) * 1.1
        return float(group["d"])


class EveryKindOfValue(Keeper):
    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        nested = group.setdefault("nested", {"list": [0.1], "deep": {"pair": (1, None), 3: "word"}})
        nested["list"] = [*nested["list"][-3:], nested["list"][-1] / 3]
        first, _ = nested["deep"]["pair"]
        nested["deep"]["pair"] = (first + 1, None)
        group["on"], group["unset"], group["mode"] = not group.get("on", False), None, "größe"
        group["array"] = group.get("array", np.arange(3, dtype=np.int16)) + np.int16(1)
        group["scalar"] = np.float32(group.get("scalar", 1.0)) * np.float32(1.1)
        group["limit"], group["kind"] = float("inf"), torch.bfloat16
        return float(sum(nested["list"]) + first + group["on"] + group["array"].sum() + group["scalar"])


class StateOfOtherTypes(Keeper):
    """Numbers of other types than the parameter's, which torch's own loading casts."""

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        state = self.state[weight]
        for name, dtype in (("double", torch.float64), ("half", torch.bfloat16), ("whole", torch.int64)):
            before = state.get(name, torch.ones(weight.shape, dtype=dtype))
            state[name] = (before * 1.3 + 1 / 3).to(dtype)
        state["flag"], state["word"], state["none"] = not state.get("flag", True), "x", None
        total = sum(state[name].double().sum() for name in ("double", "half", "whole"))
        return abs(float(total)) + state["flag"]


class StateUnderAName(Keeper):
    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        shared = self.state["shared"]  # type: ignore[index]
        shared["steps"] = shared.get("steps", 0) + 1
        return float(shared["steps"])


class Noisy(Keeper):
    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        return float(torch.rand(())) + np.random.rand()


class Wrapper(torch.optim.SGD):
    """Lookahead: its slow weights stand in a part of `state_dict` of their own."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr=lr, momentum=0.5)
        self.slow: dict[int, Tensor] = {}
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        self.steps += 1
        for index, weight in enumerate(self.param_groups[0]["params"]):
            slow = self.slow.setdefault(index, weight.clone())
            if self.steps % 5 == 0:
                weight.copy_(slow.lerp_(weight, 0.5))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "slow": dict(self.slow), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
        self.slow, self.steps = dict(state_dict["slow"]), state_dict["steps"]


class SlowInAttributes(torch.optim.SGD):
    """Lookahead whose slow weights and count no state_dict has, and which no step shows before the thirtieth."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.slow: list[Tensor] = []
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self.slow = self.slow or [weight.clone() for weight in weights]
        self.steps += 1
        if self.steps % 30 == 0:
            for weight, slow in zip(weights, self.slow, strict=True):
                weight.copy_(slow.lerp_(weight, 0.5))


class WrapsAnOptimizer(torch.optim.SGD):
    """Steps by another optimizer, whose memory it does not save, once it has counted to forty."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.inner, self.steps = torch.optim.Adam(self.param_groups[0]["params"], lr=lr), {"count": 0}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps["count"] += 1
        (self.inner if self.steps["count"] > 40 else super()).step()


class MomentumOfMatrices(Keeper):
    """Keeps momentum in an attribute, of greater matrices alone."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.momenta: dict[int, Tensor] = {}

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        if weight.numel() > 10:
            place = [id(each) for each in group["params"]].index(id(weight))
            self.momenta[place] = 0.9 * self.momenta.get(place, torch.zeros_like(weight)) + weight
        return 0.0


class CountInAttribute(Keeper):
    count = 0

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        self.count += 1
        return float(self.count)


class LateInAttribute(CountInAttribute):
    """Only every fifth step shows it, as with Lookahead."""

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        return 0.0 if super().remember(group, weight) % 5 else 1.0


class CountInClass(Keeper):
    counts: ClassVar[list[int]] = []

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        self.counts.append(1)
        return float(len(self.counts))


class ObjectInState(Keeper):
    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        self.state[weight]["window"] = {1, 2}
        return 0.0


class SparseInState(Keeper):
    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        self.state[weight]["rows"] = torch.eye(2).to_sparse()
        return 0.0


class LoadsNothing(torch.optim.SGD):
    def __init__(self, params: Iterable[Tensor]) -> None:
        super().__init__(params, lr=0.1, momentum=0.9)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class SharesTheWeight(Keeper):
    """Its state is the parameter itself, which a file cannot say."""

    def remember(self, group: dict[str, Any], weight: Tensor) -> float:
        return float(self.state[weight].setdefault("itself", weight.data).abs().sum())


KEPT: list[type[torch.optim.Optimizer]] = [
    CountInGroup, ChangesItsRate, TensorInGroup, EveryKindOfValue, StateOfOtherTypes, StateUnderAName, Noisy, Wrapper,
]  # fmt: skip
REFUSED: list[tuple[type[torch.optim.Optimizer], str]] = [
    (CountInAttribute, "outside its state_dict"),
    (LateInAttribute, "outside its state_dict"),
    (CountInClass, "outside its state_dict"),
    (SharesTheWeight, "outside its state_dict"),
    (ObjectInState, "its state.0.window is a set, which is neither a tensor nor a plain value"),
    (SparseInState, "its state.0.rows is no dense tensor"),
    (LoadsNothing, "its state_dict is another after loading"),
]
LOST_LATER: list[type[torch.optim.Optimizer]] = [SlowInAttributes, WrapsAnOptimizer]
"""What they keep in attributes is lost, and steps show it only later; of greater matrices also MomentumOfMatrices."""
