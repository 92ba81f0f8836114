"""Classes for task `own`: what researchers bring, each a few lines, and wrong ones."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

B, WIDTH, WORDS = 8, 6, 11


def drawn(worker: int, seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + 1009 * worker + step)


class Plain:
    """Vectors and three classes, in a dict; an optimizer of the scenario's."""

    def __init__(self, hidden: int = 12) -> None:
        self.hidden = hidden

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, self.hidden), nn.Dropout(0.2), nn.ReLU(), nn.Linear(self.hidden, 3))

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        inputs = torch.randn(B, WIDTH, generator=drawn(worker, seed, step))
        return {"inputs": inputs, "classes": inputs[:, :3].argmax(1)}

    def loss(self, model: nn.Module, batch: Any) -> Any:
        outputs = model(batch["inputs"])
        right = outputs.argmax(1).eq(batch["classes"]).sum()
        loss = functional.cross_entropy(outputs, batch["classes"])
        return loss, {"accuracy": (right, B), "error": (B - right, B)}

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(99, 1, 0, step) for step in range(3)]
        yield "other", (self.batch(98, 1, 0, step) for step in range(2))


class TwoOptimizers(Plain):
    """Groups by name: AdamW for matrices, SGD for the rest, and a schedule of their own."""

    def optimizer(self, model: nn.Module) -> Any:
        named = dict(model.named_parameters())
        matrices = torch.optim.AdamW([each for each in named.values() if each.dim() > 1], lr=0.01)
        rest = torch.optim.SGD([each for each in named.values() if each.dim() < 2], lr=0.05, momentum=0.9)
        return [matrices, rest, torch.optim.lr_scheduler.CosineAnnealingLR(matrices, 20)]


class Normed(Plain):
    """BatchNorm and weight norm."""

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(weight_norm(nn.Linear(WIDTH, 12)), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


class Compiled(Plain):
    """torch.compile."""

    def model(self, seed: int) -> nn.Module:
        return torch.compile(super().model(seed), backend="eager")  # type: ignore[return-value]


class Cast(Plain):
    """Autocast of the user's own."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(batch["inputs"])
        return functional.cross_entropy(outputs.float(), batch["classes"])


class Counter:
    """An iterator with a state."""

    def __init__(self, task: Plain, worker: int, workers: int, seed: int) -> None:
        self.task, self.whose, self.step = task, (worker, workers, seed), 0

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> Any:
        self.step += 1
        return self.task.batch(*self.whose, self.step)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "noise": torch.arange(3)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["noise"].tolist() == [0, 1, 2]
        self.step = state["step"]


class Streamed:
    """A stream of minibatches."""

    def __init__(self) -> None:
        self.plain = Plain()
        self.model, self.loss, self.evaluations = self.plain.model, self.plain.loss, self.plain.evaluations

    def stream(self, worker: int, workers: int, seed: int) -> Any:
        return Counter(self.plain, worker, workers, seed)


class Tokens:
    """Ids in tuples, a next-token loss as sum and weight, perplexity and token accuracy."""

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Embedding(WORDS, 8), nn.Linear(8, WORDS))

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        ids = torch.randint(WORDS, (B, 7), generator=drawn(worker, seed, step))
        return ids[:, :-1], (ids[:, 1:],)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        outputs, ids = model(batch[0]).flatten(0, 1), batch[1][0].flatten()
        total = functional.cross_entropy(outputs, ids, reduction="sum")
        return (total, len(ids)), {"token_accuracy": (outputs.argmax(1).eq(ids).sum(), len(ids))}

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "valid", [self.batch(9, 1, 1, 0)]


class Packed:
    """A packed sequence into an LSTM."""

    def model(self, seed: int) -> nn.Module:
        return nn.ModuleDict({"lstm": nn.LSTM(WIDTH, 5, batch_first=True), "out": nn.Linear(5, 1)})

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        draw = drawn(worker, seed, step)
        lengths = torch.randint(1, 6, (B,), generator=draw)
        sequences = torch.randn(B, 6, WIDTH, generator=draw)
        return pack_padded_sequence(sequences, lengths, batch_first=True, enforce_sorted=False), lengths.float()

    def loss(self, model: nn.Module, batch: Any) -> Any:
        modules: Any = model
        _, (hidden, _) = modules["lstm"](batch[0])
        return (modules["out"](hidden[0]).squeeze(1) - batch[1]).square().mean()


class Gan:
    """Two networks, two optimizers, a step of its own."""

    def model(self, seed: int) -> nn.Module:
        return nn.ModuleDict({"generator": nn.Linear(2, WIDTH), "critic": nn.Linear(WIDTH, 1)})

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Tensor:
        return torch.randn(B, WIDTH, generator=drawn(worker, seed, step))

    def optimizer(self, model: Any) -> Any:
        return [torch.optim.Adam(model[name].parameters(), lr=0.01) for name in ("generator", "critic")]

    def step(self, model: Any, optimizers: Any, batch: Tensor) -> Any:
        made = model["generator"](torch.randn(B, 2))
        optimizers[1].zero_grad()
        critic_loss = functional.softplus(-model["critic"](batch)).mean()
        critic_loss = critic_loss + functional.softplus(model["critic"](made.detach())).mean()
        critic_loss.backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        loss = functional.softplus(-model["critic"](made)).mean()
        loss.backward()
        optimizers[0].step()
        return loss.detach(), {"error": (critic_loss.detach(), 1)}


class Averaged(Plain):
    """Two minibatches accumulated in a step, and an exponential average of the weights, which is evaluated."""

    def model(self, seed: int) -> nn.Module:
        live = super().model(seed)
        return nn.ModuleDict({"live": live, "ema": copy.deepcopy(live).requires_grad_(False)})

    def step(self, model: Any, optimizers: Any, batch: Any) -> Any:
        (optimizer,) = optimizers
        optimizer.zero_grad()
        total = 0.0
        for half in (slice(B // 2), slice(B // 2, None)):
            outputs = model["live"](batch["inputs"][half])
            loss = functional.cross_entropy(outputs, batch["classes"][half]) / 2
            loss.backward()
            total += loss.detach()
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(model["ema"].parameters(), model["live"].parameters(), strict=True):
                mean.lerp_(weight, 0.1)
        return total

    def loss(self, model: Any, batch: Any) -> Any:
        return functional.cross_entropy(model["ema"](batch["inputs"]), batch["classes"])


@dataclasses.dataclass
class Pair:
    """A minibatch of arrays."""

    inputs: np.ndarray[Any, Any]
    classes: Tensor


class Arrays(Plain):
    """A dataclass with an array of numpy's; metrics of numpy's numbers."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        return Pair(found["inputs"].numpy(), found["classes"])

    def loss(self, model: nn.Module, batch: Any) -> Any:
        found, _ = super().loss(model, {"inputs": torch.from_numpy(batch.inputs), "classes": batch.classes})
        return found, {"largest": (np.float64(batch.inputs.max()), np.int64(1))}


class Contrastive(Plain):
    """InfoNCE over two views of a minibatch (van den Oord et al. 2018)."""

    def model(self, seed: int) -> nn.Module:
        return nn.Linear(WIDTH, 5)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        one, other = (model(batch["inputs"] + 0.1 * torch.randn(B, WIDTH)) for _ in range(2))
        return functional.cross_entropy(one @ other.T, torch.arange(B))


GOOD = [Plain, TwoOptimizers, Normed, Compiled, Cast, Streamed, Tokens, Packed, Gan, Averaged, Arrays, Contrastive]


# ---------------------------------------------------------------- wrong ones


class NoModel:
    batch = loss = None


class NoTensor(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return 1.0


class NoGradient(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0].detach()


class NotOne(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return model(batch["inputs"])


class OtherMetrics(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(worker, workers, seed, step) | ({"bare": torch.ones(1)} if step % 2 else {})

    def loss(self, model: nn.Module, batch: Any) -> Any:
        loss, metrics = super().loss(model, batch)
        return loss, {} if "bare" in batch else metrics


class MetricOfOneNumber(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch)[0], {"accuracy": 0.5}


class OtherBatch(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(worker, workers, int(torch.randint(9, ())), step)


class BatchOfOrder(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        self.hidden += 1
        return super().batch(worker, workers, seed, step + self.hidden)


class BatchRaises(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        raise KeyError("users")


class StatelessStream(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        return (self.plain.batch(worker, workers, seed, step) for step in range(1000))


class ForgetfulStream(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Forgetful(Counter):
            def load_state_dict(self, state: dict[str, Any]) -> None:
                pass

        return Forgetful(self.plain, worker, workers, seed)


class ShortStream(Streamed):
    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Short(Counter):
            def __next__(self) -> Any:
                if self.step:
                    raise StopIteration
                return super().__next__()

        return Short(self.plain, worker, workers, seed)


class NoOptimizer(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return 3


class Lbfgs(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.LBFGS(model.parameters())


class OthersParameters(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)


class Lazy(Plain):
    def model(self, seed: int) -> nn.Module:
        return nn.LazyLinear(3)


class OtherMetricsLater(OtherMetrics):
    """An evaluation whose second minibatch has other metrics."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(worker, workers, seed, 0)

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, 0, 0), self.batch(9, 1, 0, 0) | {"bare": torch.ones(1)}]


class TwiceTest(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, 0, 0)]
        yield "test", [self.batch(9, 1, 0, 0)]


class NoSplit(Plain):
    def evaluations(self) -> Iterator[Any]:
        yield self.batch(9, 1, 0, 0)


class SameModule(Plain):
    """A module that was made once."""

    def __init__(self) -> None:
        self.made = Plain().model(0)

    def model(self, seed: int) -> nn.Module:
        return self.made


class SharedBody(Plain):
    """A frozen body that was loaded once, under a new head."""

    def __init__(self) -> None:
        self.body = nn.Linear(WIDTH, 12).requires_grad_(False)

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(self.body, nn.Linear(12, 3))


class Leaves(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        raise SystemExit(3)


class NoTestData(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        raise ValueError("no test data")


class NoMinibatches(Plain):
    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", 3


class Plateau(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        made = torch.optim.SGD(model.parameters(), lr=0.1)
        return made, torch.optim.lr_scheduler.ReduceLROnPlateau(made)


class StepOfNoTensor(Gan):
    def step(self, model: Any, optimizers: Any, batch: Tensor) -> Any:
        return 1.0


WRONG: list[tuple[type[Any], str]] = [
    (NoModel, "has no method model; it is a class with the methods model, batch or stream, and loss or step"),
    (NoTensor, "NoTensor.loss returns float as its loss; it must be the mean, a tensor () that has a gradient"),
    (NoGradient, "NoGradient.loss returns a loss without a gradient"),
    (NotOne, "NotOne.loss returns a tensor of (8, 3) as its loss"),
    (OtherMetrics, "has these metrics of one minibatch: accuracy, error; of the next: none; give the same of all"),
    (MetricOfOneNumber, "returns float as metric accuracy; it must be a tuple (sum, weight)"),
    (OtherBatch, "OtherBatch.batch gives another minibatch 2 when worker 0 asks again: ['inputs'] differs"),
    (BatchOfOrder, "gives another minibatch 2 when worker 0 asks again"),
    (BatchRaises, "BatchRaises.batch raised KeyError: 'users'"),
    (StatelessStream, "returns generator; a stream needs state_dict() and load_state_dict(): else a resumed run"),
    (ForgetfulStream, "restored by load_state_dict after 1 it continues with another minibatch"),
    (ShortStream, "the stream ends after 1 minibatches; it must go on for ever"),
    (NoOptimizer, "NoOptimizer.optimizer returns int; it must be a torch.optim.Optimizer, or a list of optimizers"),
    (Lbfgs, "returns LBFGS, which evaluates a minibatch several times a step"),
    (OthersParameters, "takes parameters that are not of the model that it is given"),
    (Lazy, "leaves the shape of its parameter weight open"),
    (OtherMetricsLater, "for a minibatch of test, none for another"),
    (TwiceTest, "evaluations yields test twice"),
    (NoSplit, "evaluations yields dict; it must be a tuple of a split's name and an iterable of minibatches"),
    (SameModule, "returns the same parameter 0.weight again; each call must make new ones"),
    (SharedBody, "returns the same parameter 0.weight again"),
    (Leaves, "ends the program: SystemExit: 3"),
    (NoTestData, "NoTestData.evaluations raised ValueError: no test data"),
    (NoMinibatches, "NoMinibatches.evaluations raised TypeError: 'int' object is not iterable"),
    (Plateau, "the first step with tests.tasks.own_classes:Plateau fails: TypeError: ReduceLROnPlateau.step()"),
    (StepOfNoTensor, "StepOfNoTensor.step returns float as its loss"),
]
