"""Classes for task `own` that go wrong in further ways: attributes in the place of methods, minibatches that differ
unseen, weights and names that no table could hold, optimizers of something else, streams that forget.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .own_classes import WIDTH, B, Counter, Gan, Plain, Streamed

# ---------------------------------------------------------------- methods


class ModuleAsModel(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(WIDTH, 3)  # type: ignore[assignment,method-assign]


class TextAsOptimizer(Plain):
    optimizer = "Adam"


class AsyncLoss(Plain):
    async def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)


class YieldingBatch(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        yield super().batch(worker, workers, seed, step)


class PropertyRaises(Plain):
    @property
    def batch(self) -> Any:  # type: ignore[override]
        raise FileNotFoundError("train.bin")


class ParsesArguments(Plain):
    """What argparse does with the arguments of another program."""

    def __init__(self) -> None:
        raise SystemExit(2)


class Cancelled(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        raise asyncio.CancelledError


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


class SpeaksBadly(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        raise Unspeakable


# ---------------------------------------------------------------- minibatches


class WithItsGraph(Plain):
    """Inputs from an encoder that is not frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(WIDTH, WIDTH)

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        return found | {"inputs": self.encoder(found["inputs"])}


class HoldsAGenerator(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(worker, workers, seed, step) | {"rows": (row for row in range(3))}


class HoldsItself(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        rows: list[Any] = []
        rows.append(rows)
        return super().batch(worker, workers, seed, step) | {"rows": rows}


class RandomNamespace(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return types.SimpleNamespace(**super().batch(worker, workers, int(torch.randint(9, ())), step))

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, vars(batch))


class Item:
    def __init__(self, inputs: Tensor, classes: Tensor) -> None:
        self.inputs, self.classes = inputs, classes


class RandomItems(RandomNamespace):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return Item(**vars(super().batch(worker, workers, seed, step)))


class FromTheSystem(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(worker, workers, os.urandom(2)[0] + random.SystemRandom().randrange(99), step)


class OnMeta(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return {name: each.to("meta") for name, each in super().batch(worker, workers, seed, step).items()}


class MiddleWorker(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch({0: 0, 2: 2, 99: 99, 98: 98}[worker], workers, seed, step)


class FailsLater(Plain):
    """A file that is read so often, and no more."""

    calls = 0

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        self.calls += 1
        if self.calls > 9:
            raise ValueError("I/O operation on closed file")
        return super().batch(worker, workers, seed, step)


# ---------------------------------------------------------------- models


class MetaModel(Plain):
    def model(self, seed: int) -> nn.Module:
        with torch.device("meta"):
            return super().model(seed)


class MetaBuffer(Plain):
    def model(self, seed: int) -> nn.Module:
        model = super().model(seed)
        model.register_buffer("mask", torch.ones(3, device="meta"))
        return model


class ModelClass(Plain):
    def model(self, seed: int) -> Any:
        return nn.Linear


class ModelAndMore(Plain):
    def model(self, seed: int) -> Any:
        return super().model(seed), {"width": 3}


class KeepsItsNet(Plain):
    """A loss of the network that the class has kept, not of the one that it is given."""

    def model(self, seed: int) -> nn.Module:
        self.net = super().model(seed)
        return self.net

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(self.net, batch)


class OtherShapes(Plain):
    calls = 0

    def model(self, seed: int) -> nn.Module:
        self.calls += 1
        return nn.Linear(WIDTH, 2 + self.calls)


class TrainRaises(Plain):
    def model(self, seed: int) -> nn.Module:
        class Fixed(nn.Linear):
            def train(self, mode: bool = True) -> Any:
                raise NotImplementedError("this network is for inference")

        return Fixed(WIDTH, 3)


class ShadowsParameters(Plain):
    """A dict of settings in the place of a method of Module's."""

    def model(self, seed: int) -> nn.Module:
        model = super().model(seed)
        model.parameters = {"width": 12}  # type: ignore[assignment,method-assign]
        return model


class NoForward(Plain):
    def model(self, seed: int) -> nn.Module:
        return nn.ModuleList([nn.Linear(WIDTH, 3)])


class SharesMemory(Plain):
    def model(self, seed: int) -> nn.Module:
        one, other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        other.weight = nn.Parameter(one.weight.data)
        return nn.Sequential(one, other, nn.Linear(WIDTH, 3))


# ---------------------------------------------------------------- losses and metrics


class Returns(Plain):
    """A loss with something else around it."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return self.changed(super().loss(model, batch)[0])

    def changed(self, loss: Tensor) -> Any:
        return loss


class ListOfBoth(Returns):
    def changed(self, loss: Tensor) -> Any:
        return [loss, {"accuracy": (1, B)}]


class ThreeThings(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"accuracy": (1, B)}, "more"


class TwoLosses(Returns):
    def changed(self, loss: Tensor) -> Any:
        return torch.stack([loss, loss])


class ComplexLoss(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss * 1j


class WholeLoss(Returns):
    def changed(self, loss: Tensor) -> Any:
        return (100 * loss).long()


class Backwards(Returns):
    """It takes the gradient itself."""

    def changed(self, loss: Tensor) -> Any:
        loss.backward()
        return loss


class NegativeWeight(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"accuracy": (1, -B)}


class NanWeight(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"accuracy": (1, float("nan"))}


class InfiniteWeight(Returns):
    def changed(self, loss: Tensor) -> Any:
        return (loss, torch.tensor(float("inf"))), {}


class NegativeLossWeight(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, -1.0


class MetricOfMany(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"accuracy": (torch.ones(B), B)}


class MetricInAList(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"accuracy": [1, B]}


class MetricOfText(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"accuracy": ("1", B)}


class MetricOfANumber(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {5: (1, B)}


class MetricOfTwoLines(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"top\nfive": (1, B)}


class MetricOfALongName(Returns):
    def changed(self, loss: Tensor) -> Any:
        return loss, {"a" * 5000: (1, B)}


class StepReturnsNothing(Gan):
    def step(self, model: Any, optimizers: Any, batch: Tensor) -> Any:
        super().step(model, optimizers, batch)


class StepOfNegativeWeight(Gan):
    def step(self, model: Any, optimizers: Any, batch: Tensor) -> Any:
        return super().step(model, optimizers, batch)[0], {"error": (1, -1)}


class StepWithOtherMetrics(Gan):
    def step(self, model: Any, optimizers: Any, batch: Tensor) -> Any:
        loss, metrics = super().step(model, optimizers, batch)
        return loss, metrics | ({"late": (1, 1)} if optimizers[0].state_dict()["state"][0]["step"] > 1 else {})


# ---------------------------------------------------------------- optimizers


class SameTwice(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return [torch.optim.SGD(model.parameters(), lr=0.1)] * 2


class StrayScheduler(Plain):
    """A schedule of an optimizer that nobody steps."""

    def optimizer(self, model: nn.Module) -> Any:
        one, other = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
        return [one, torch.optim.lr_scheduler.StepLR(other, 2)]


class AsLightning(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        made = torch.optim.SGD(model.parameters(), lr=0.1)
        return {"optimizer": made, "lr_scheduler": torch.optim.lr_scheduler.StepLR(made, 2)}


class OptimizerClass(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.SGD


class EmptyList(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return []


class SchedulerFirst(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        made = torch.optim.SGD(model.parameters(), lr=0.1)
        return [torch.optim.lr_scheduler.StepLR(made, 2), made]


class OfACopy(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.SGD([*model.parameters(), *copy.deepcopy(model).parameters()], lr=0.1)


class NeedsClosure(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        class Closed(torch.optim.SGD):
            def step(self, closure: Any) -> Any:  # type: ignore[override]
                return super().step(closure)

        return Closed(model.parameters(), lr=0.1)


class OtherEachTime(Plain):
    calls = 0

    def optimizer(self, model: nn.Module) -> Any:
        self.calls += 1
        return torch.optim.SGD(model.parameters(), lr=0.1 * self.calls)


# ---------------------------------------------------------------- evaluations


class NoneOfThem(Plain):
    def evaluations(self) -> Any:
        return None


class DictOfSplits(Plain):
    def evaluations(self) -> Any:
        return {"test": [self.batch(9, 1, 0, 0)]}


class UnnamedSplit(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "", [self.batch(9, 1, 0, 0)]


class SplitOfTwoLines(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "te\nst", [self.batch(9, 1, 0, 0)]


class OneColumn(Plain):
    """Two metrics of one name in the summary: test hard_loss, and test_hard loss."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        loss, _ = super().loss(model, batch)
        return loss, {"hard_loss": (loss.detach(), 1)}

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, 0, 0)]
        yield "test_hard", [self.batch(9, 1, 0, 1)]


class SecondSplitRaises(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, 0, 0)]
        raise OSError("no valid.bin")


class OneMinibatch(Plain):
    """A minibatch where a list of some is meant."""

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", self.batch(9, 1, 0, 0)


class NotCalled(Plain):
    def minibatches(self) -> Iterator[Any]:
        yield self.batch(9, 1, 0, 0)

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", self.minibatches


class NegativeInEvaluation(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        loss, metrics = super().loss(model, batch)
        return loss, metrics if model.training else metrics | {"accuracy": (1, -1)}


# ---------------------------------------------------------------- streams


class OneIterator(Streamed):
    """One iterator for all who ask."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Counter(self.plain, 0, 1, 0)

    def stream(self, worker: int, workers: int, seed: int) -> Any:
        return self.one


class StateOfNone(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Stateless(Counter):
            def state_dict(self) -> Any:
                return None

        return Stateless(self.plain, worker, workers, seed)


class SavingAdvances(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Advancing(Counter):
            def state_dict(self) -> Any:
                self.step += 1
                return super().state_dict()

        return Advancing(self.plain, worker, workers, seed)


class ForgetsItsEpoch(Streamed):
    """A place in an epoch of five, without the number of the epoch."""

    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Shuffled(Counter):
            epoch = 0

            def __next__(self) -> Any:
                if self.step == 5:
                    self.step, self.epoch = 0, self.epoch + 1
                self.step += 1
                return self.task.batch(self.whose[0], *self.whose[1:], self.step + 100 * self.epoch)

        return Shuffled(self.plain, worker, workers, seed)


class ReadsAhead(Streamed):
    """A state that is one minibatch ahead of what it has given."""

    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Ahead(Counter):
            def __next__(self) -> Any:
                self.waiting = getattr(self, "waiting", None) or super().__next__()
                found, self.waiting = self.waiting, super().__next__()
                return found

        return Ahead(self.plain, worker, workers, seed)


class LoadRaises(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Raises(Counter):
            def load_state_dict(self, state: dict[str, Any]) -> None:
                raise NotImplementedError

        return Raises(self.plain, worker, workers, seed)


class KeyedByPairs(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Keyed(Counter):
            def state_dict(self) -> Any:
                return {(0, 1): self.step}

        return Keyed(self.plain, worker, workers, seed)


HOSTILE: list[tuple[type[Any], str]] = [
    (ModuleAsModel, "ModuleAsModel.model is a Linear; it must be a plain method"),
    (TextAsOptimizer, "TextAsOptimizer.optimizer is a str; it must be a plain method"),
    (AsyncLoss, "AsyncLoss.loss is async; it must be a plain method"),
    (YieldingBatch, "YieldingBatch.batch yields, and must return"),
    (PropertyRaises, "PropertyRaises.batch raised FileNotFoundError: train.bin"),
    (ParsesArguments, "ParsesArguments ends the program: SystemExit: 2"),
    (Cancelled, "Cancelled ends the program: CancelledError"),
    (SpeaksBadly, "SpeaksBadly.loss raised Unspeakable"),
    (WithItsGraph, "returns a tensor ['inputs'] with the graph of its computation; detach() it"),
    (HoldsAGenerator, "returns what cannot be copied: TypeError: cannot pickle 'generator' object"),
    (HoldsItself, "raised RecursionError"),
    (RandomNamespace, "gives another minibatch 2 when worker 0 asks again"),
    (RandomItems, "gives another minibatch 2 when worker 0 asks again"),
    (FromTheSystem, "gives another minibatch 2 when worker 0 asks again"),
    (OnMeta, "OnMeta.batch raised NotImplementedError: Cannot copy out of meta tensor"),
    (FailsLater, "FailsLater.batch raised ValueError: I/O operation on closed file"),
    (MetaModel, "has no memory for its 0.weight, which is on the device meta"),
    (MetaBuffer, "has no memory for its mask, which is on the device meta"),
    (ModelClass, "ModelClass.model returned type; it must return a torch.nn.Module"),
    (ModelAndMore, "ModelAndMore.model returned tuple; it must return a torch.nn.Module"),
    (KeepsItsNet, "KeepsItsNet"),
    (OtherShapes, "returns another model the second time: parameters of other shapes"),
    (TrainRaises, "returned a module that cannot be trained: NotImplementedError: this network is for inference"),
    (ShadowsParameters, "returned a module that cannot be trained: TypeError: 'dict' object is not callable"),
    (NoForward, "NoForward.loss raised NotImplementedError"),
    (SharesMemory, "share memory; tie weights by using one Parameter twice"),
    (ListOfBoth, "ListOfBoth.loss returns list as its loss"),
    (ThreeThings, "ThreeThings.loss returns tuple as its loss"),
    (TwoLosses, "TwoLosses.loss returns a tensor of (2,) as its loss"),
    (ComplexLoss, "ComplexLoss"),
    (WholeLoss, "WholeLoss.loss returns a loss without a gradient"),
    (Backwards, "Backwards cannot learn: RuntimeError: Trying to backward through the graph a second time"),
    (NegativeWeight, "returns a metric accuracy of weight -8; a weight must be 0 or more"),
    (NanWeight, "returns a metric accuracy of weight nan; a weight must be 0 or more"),
    (InfiniteWeight, "returns a loss of weight inf; a weight must be positive"),
    (NegativeLossWeight, "returns a loss of weight -1; a weight must be positive"),
    (MetricOfMany, "returns tuple as metric accuracy; it must be a tuple (sum, weight) of real numbers"),
    (MetricInAList, "returns list as metric accuracy; it must be a tuple (sum, weight)"),
    (MetricOfText, "returns tuple as metric accuracy; it must be a tuple (sum, weight) of real numbers"),
    (MetricOfANumber, "returns a metric named '5'"),
    (MetricOfTwoLines, r"returns a metric named 'top\nfive'"),
    (MetricOfALongName, "a name is printable text, 1 to 100 letters"),
    (StepReturnsNothing, "StepReturnsNothing.step returns NoneType as its loss"),
    (StepOfNegativeWeight, "StepOfNegativeWeight.step returns a metric error of weight -1"),
    (StepWithOtherMetrics, "has these metrics of one minibatch: error; of the next: error, late; give the same of all"),
    (SameTwice, "SameTwice.optimizer returns the same SGD twice"),
    (StrayScheduler, "returns StepLR, a scheduler of an optimizer that it does not return"),
    (AsLightning, "AsLightning.optimizer returns dict; it must be a torch.optim.Optimizer"),
    (OptimizerClass, "OptimizerClass.optimizer returns type; it must be a torch.optim.Optimizer"),
    (EmptyList, "EmptyList.optimizer returns no optimizer"),
    (SchedulerFirst, "SchedulerFirst.optimizer returns no optimizer"),
    (OfACopy, "OfACopy.optimizer takes parameters that are not of the model that it is given"),
    (NeedsClosure, "fails: TypeError"),
    (OtherEachTime, "computes something else each time that it is built and trained from one seed"),
    (NoneOfThem, "NoneOfThem.evaluations raised TypeError: 'NoneType' object is not iterable"),
    (DictOfSplits, "DictOfSplits.evaluations yields str; it must be a tuple of a split's name"),
    (UnnamedSplit, "UnnamedSplit.evaluations yields a split named ''"),
    (SplitOfTwoLines, r"SplitOfTwoLines.evaluations yields a split named 'te\nst'"),
    (OneColumn, "evaluates test hard_loss and test_hard loss, which are both test_hard_loss in summary.json"),
    (SecondSplitRaises, "SecondSplitRaises.evaluations raised OSError: no valid.bin"),
    (OneMinibatch, "OneMinibatch cannot be evaluated on test: TypeError"),
    (NotCalled, "NotCalled.evaluations raised TypeError: 'method' object is not iterable"),
    (NegativeInEvaluation, "returns accuracy of weight -1 for a minibatch of test; a weight must be 0 or more"),
    (OneIterator, "gives another minibatch 2 when worker 0 asks again"),
    (StateOfNone, "StateOfNone.stream"),
    (SavingAdvances, "SavingAdvances.stream"),
    (ForgetsItsEpoch, "restored by load_state_dict after 10 it continues with another minibatch"),
    (ReadsAhead, "restored by load_state_dict after 1 it continues with another minibatch"),
    (LoadRaises, "its state cannot be restored: NotImplementedError"),
    (KeyedByPairs, "its state cannot be saved: TypeError: its state_dict has a key that is a tuple"),
]


# ---------------------------------------------------------------- doubtful, and right


class NanMetric(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0], {"auc": (float("nan"), 1)}


class NoSplits(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        return iter(())


class NoMetricWeight(Plain):
    """No sample counts."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0], {"auc": (0, 0)}


DOUBTED: list[tuple[type[Any], list[str]]] = [
    (NanMetric, ["evaluates test auc to nan before it is trained", "evaluates other auc to nan before it is trained"]),
    (NoMetricWeight, ["evaluates test auc to nan", "evaluates other auc to nan"]),
    (NoSplits, ["NoSplits.evaluations yields nothing, so nothing is evaluated"]),
]


class Nones(Plain):
    """Methods that a base class has set to None."""

    stream = step = optimizer = None


class Graphs(Plain):
    """A sparse matrix of neighbours."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        places = torch.stack([torch.arange(B), (torch.arange(B) + 1) % B])
        return found | {"neighbours": torch.sparse_coo_tensor(places, torch.ones(B), (B, B), check_invariants=True)}

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch | {"inputs": batch["inputs"] + batch["neighbours"] @ batch["inputs"]})


class Waves(Plain):
    """Complex numbers."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        return found | {"waves": torch.fft.fft(found["inputs"])}

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch | {"inputs": batch["waves"].abs()})


class Texts(Plain):
    """Words in an array of objects, and a set of them."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        words = [f"word {worker} {step} {place}" for place in range(B)]
        return super().batch(worker, workers, seed, step) | {"words": np.array(words, dtype=object), "all": set(words)}


class Derived(Plain):
    """A loss of derivatives by the inputs, as networks for physics have."""

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 12), nn.Tanh(), nn.Linear(12, 1))

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(worker, workers, seed, step)["inputs"].requires_grad_()

    def loss(self, model: nn.Module, batch: Any) -> Any:
        with torch.enable_grad():
            batch = batch if batch.requires_grad else batch.requires_grad_()
            (slopes,) = torch.autograd.grad(model(batch).sum(), batch, create_graph=True)
        return (slopes.sum(1) - 1).square().mean()


class Namespaces(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return types.SimpleNamespace(**super().batch(worker, workers, seed, step))

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, vars(batch))


class OfEveryType(Plain):
    """A tensor of every type that torch can make."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        kinds = [each for each in vars(torch).values() if isinstance(each, torch.dtype) and each != torch.complex32]
        return found | dict(itertools.chain.from_iterable(map(_of, kinds)))


def _of(kind: torch.dtype) -> list[tuple[str, Tensor]]:
    try:
        return [(str(kind), torch.zeros(3).to(kind))]
    except (RuntimeError, NotImplementedError, TypeError):  # of quantised numbers and parts of a byte
        return []


RIGHT = [Nones, Graphs, Waves, Texts, Derived, Namespaces, OfEveryType]
