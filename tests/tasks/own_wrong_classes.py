"""More wrong classes for task `own`, and doubtful ones: what each is told before the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .own_classes import WIDTH, Counter, Gan, Plain, Streamed


class NanModel(Plain):
    """A NaN from the factory, where a file of weights was damaged."""

    def model(self, seed: int) -> nn.Module:
        model = super().model(seed)
        with torch.no_grad():
            model[0].weight[1, 2] = float("nan")  # type: ignore[index]
        return model


class InfiniteModel(Plain):
    def model(self, seed: int) -> nn.Module:
        model = super().model(seed)
        with torch.no_grad():
            model[3].bias.fill_(float("inf"))  # type: ignore[index]
        return model


class NoneModel(Plain):
    def model(self, seed: int) -> Any:
        return None


class DoubleModel(Plain):
    def model(self, seed: int) -> nn.Module:
        return super().model(seed).double()


class ModelRaises(Plain):
    def model(self, seed: int) -> nn.Module:
        raise FileNotFoundError("weights.pt")


class AllFrozen(Plain):
    def model(self, seed: int) -> nn.Module:
        return super().model(seed).requires_grad_(False)


class OtherModel(Plain):
    """Weights from a generator that nobody seeds again."""

    draw = torch.Generator().manual_seed(0)

    def model(self, seed: int) -> nn.Module:
        model = super().model(seed)
        for each in model.parameters():
            nn.init.normal_(each, generator=self.draw)
        return model


class NeedsOptions(Plain):
    def __init__(self, vocabulary: int) -> None:
        super().__init__(vocabulary)


class NoneLoss(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        model(batch["inputs"])


class LossRaises(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return batch["input"]


class ConstantLoss(Plain):
    """A loss that depends on no parameter, and has a gradient."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return torch.zeros((), requires_grad=True) * 1.0


class StrayLabel(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        found["classes"][3] = 10**9
        return found


class NoWeight(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0], 0


class ComplexMetric(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0], {"phase": (1j, 1)}


class MetricCalledLoss(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0], {"loss": (1, 1)}


class MetricsInAList(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0], [("accuracy", 1)]


class ChangesItsBatch(Plain):
    """Normalises in place what `batch` keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = {step: super(ChangesItsBatch, self).batch(0, 1, 0, step) for step in range(4)}

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return self.kept[step % 4]

    def loss(self, model: nn.Module, batch: Any) -> Any:
        batch["inputs"].mul_(2)
        return super().loss(model, batch)


class BatchWithoutStep(Plain):
    def batch(self, worker: int, seed: int) -> Any:  # type: ignore[override]
        return super().batch(worker, 1, seed, 0)


class NoneBatch(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return None


class NoneStream(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        return None


class StateOfObjects(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Holding(Counter):
            def state_dict(self) -> dict[str, Any]:
                return {"file": object()}

        return Holding(self.plain, worker, workers, seed)


class UsedUp(Plain):
    """An iterator that is made once: a second evaluation finds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.test = iter([self.batch(9, 1, 0, step) for step in range(2)])

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", self.test


class HalfUsedUp(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.test = (self.batch(9, 1, 0, step) for step in range(20))

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", self.test


class RandomTest(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, int(torch.randint(99, ())), 0)]


class OtherSplits(Plain):
    calls = 0

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        self.calls += 1
        yield f"test{self.calls}", [self.batch(9, 1, 0, 0)]


class NoCompiler(Plain):
    """What torch raises where it finds no C++ compiler; tests/tasks/test_own_compiled.py has the real one."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        found = "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')"
        raise RuntimeError(f"{found}\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace")


class OptimizerRaises(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.SGD(model.parameters(), lr=-1)


class StepRaises(Gan):
    def step(self, model: Any, optimizers: Any, batch: Tensor) -> Any:
        return optimizers[2].step()


MORE_WRONG: list[tuple[type[Any], str]] = [
    (NanModel, "starts with a parameter 0.weight that has nan: 1 of 72 numbers"),
    (InfiniteModel, "starts with a parameter 3.bias that has inf: 3 of 3 numbers"),
    (NoneModel, "NoneModel.model returned NoneType; it must return a torch.nn.Module"),
    (DoubleModel, "has a parameter 0.weight of torch.float64; all must be torch.float32"),
    (ModelRaises, "ModelRaises.model raised FileNotFoundError: weights.pt (tests/tasks/own_wrong_classes.py:"),
    (AllFrozen, "has no parameters to train"),
    (OtherModel, "starts with another 0.weight each time that it is built from one seed"),
    (NeedsOptions, "raised TypeError"),
    (NoneLoss, "NoneLoss.loss returns NoneType as its loss"),
    (LossRaises, "LossRaises.loss raised KeyError: 'input' (tests/tasks/own_wrong_classes.py:"),
    (ConstantLoss, "the loss has a gradient, and it reaches no parameter of the model"),
    (StrayLabel, "StrayLabel.loss raised IndexError: Target 1000000000 is out of bounds"),
    (NoWeight, "NoWeight.loss returns a loss of weight 0; a weight must be positive"),
    (ComplexMetric, "returns tuple as metric phase; it must be a tuple (sum, weight) of real numbers"),
    (MetricCalledLoss, "returns a metric named 'loss'"),
    (MetricsInAList, "returns a tuple of Tensor and list as its loss"),
    (ChangesItsBatch, "gives another minibatch 0 after it was trained on: ['inputs'] was changed in place"),
    (BatchWithoutStep, "BatchWithoutStep.batch raised TypeError"),
    (NoneBatch, "raised TypeError: 'NoneType' object is not subscriptable"),
    (NoneStream, "raised TypeError: 'NoneType' object is not iterable"),
    (StateOfObjects, "its state cannot be saved: TypeError: its file is a object"),
    (UsedUp, "evaluations yields test without a minibatch"),
    (HalfUsedUp, "yields other minibatches of test when it is called again: [0]['inputs'] differs"),
    (RandomTest, "yields other minibatches of test when it is called again"),
    (OtherSplits, "yields test1, and test2 when it is called again"),
    (NoCompiler, "torch.compile finds no C++ compiler; install g++ or set CXX, or compile with backend='aot_eager'"),
    (OptimizerRaises, "OptimizerRaises.optimizer raised ValueError: Invalid learning rate: -1"),
    (StepRaises, "StepRaises cannot learn: IndexError: list index out of range"),
]


# ---------------------------------------------------------------- doubtful ones, which are allowed


class NanLoss(Plain):
    """A sample is missing."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        found["inputs"][0, 0] = float("nan")
        return found

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        return Plain().evaluations()


class Diverges(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.SGD(model.parameters(), lr=1e38)


class SameForAll(Plain):
    """A worker's number is forgotten."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(0, workers, seed, step)


class LeavesOut(Plain):
    """A body that is not frozen, and that no optimizer has."""

    def optimizer(self, model: Any) -> Any:
        return torch.optim.SGD(model[3].parameters(), lr=0.1)


class NoEvaluations:
    def model(self, seed: int) -> nn.Module:
        return nn.Linear(WIDTH, 1)

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return Plain().batch(worker, workers, seed, step)["inputs"]

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return functional.mse_loss(model(batch), batch[:, :1])


DOUBTFUL: list[tuple[type[Any], str]] = [
    (NanLoss, "is nan in its first minibatch, before any step"),
    (Diverges, "has parameters that are not finite after 2 minibatches; use a lower rate"),
    (SameForAll, "SameForAll.batch gives workers 0 and 1 the same minibatches; let them depend on the worker"),
    (LeavesOut, "no optimizer of tests.tasks.own_wrong_classes:LeavesOut has its parameter 0.weight and 1 more"),
    (NoEvaluations, "has no evaluations(), so nothing is evaluated"),
]
