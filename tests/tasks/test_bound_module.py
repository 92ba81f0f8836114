"""Whatever way a model holds its parameters, it trains as in a plain loop, or is refused in one line."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks import build
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.feeds import walk
from tests.tasks.configs import Classification, Optimizer, pictures

CPU = torch.device("cpu")
WIDTH = 12


class Head(nn.Module):
    """Pixels to hidden units, and a linear end: what a way of holding parameters is tried in."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(64, WIDTH)
        self.last = nn.Linear(WIDTH, num_classes)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.hidden(x))
        return found


class Closure(Head):
    """Its forward is a function that closes over the module."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.function = lambda x: self.last(self.hidden(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[no-any-return]


class InAListToo(Head):
    """Registered parameters that the forward takes from a list."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.layers = [(self.first.weight, self.first.bias), (self.last.weight, self.last.bias)]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for weight, bias in self.layers:
            x = torch.tanh(nn.functional.linear(x, weight, bias))
        return x


class Tied(Head):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.middle, self.again = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.again.weight = self.middle.weight

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.again(torch.relu(self.middle(super().hidden(x)))))


class SharedLayer(Tied):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.again = self.middle


class Recurrent(Head):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.lstm = nn.LSTM(8, WIDTH, 2, batch_first=True)

    def hidden(self, x: Tensor) -> Tensor:
        self.lstm.flatten_parameters()
        found: Tensor = self.lstm(x.flatten(1, 2))[0][:, -1]
        return found


class Running(Head):
    """Standardises by a running mean of its own, which it assigns anew."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("mean", torch.zeros(64))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return super().forward(x - self.mean)


class Counting(Head):
    """Keeps a count in Python, which scales its output."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x) * (1 + 0.1 * self.count)


class Assigned(Head):
    """A layer that is put there after construction."""


def assigned(num_classes: int) -> nn.Module:
    model = Assigned(num_classes)
    model.first = nn.Linear(64, WIDTH, bias=False)
    model.first.register_parameter("late", nn.Parameter(torch.ones(WIDTH)))
    model.first.register_forward_hook(lambda layer, _, found: found * layer.late)
    return model


class ReturnsViews(nn.Module):
    """Its outputs are a view of a parameter."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.table.expand(len(x), -1)


class FrozenNorm(Head):
    """A backbone with BatchNorm whose statistics were estimated before, and which train() keeps in evaluation mode."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.norm = nn.BatchNorm1d(WIDTH)
        with torch.no_grad():
            for _ in range(20):
                self.norm(torch.tanh(self.first(3 * torch.randn(50, 64))) + 2)
        self.first.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenNorm:
        super().train(mode)
        self.norm.eval()
        return self

    def hidden(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(super().hidden(x))
        return found


def frozen_by_its_factory(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, WIDTH), nn.BatchNorm1d(WIDTH).eval(), nn.Linear(WIDTH, num_classes)
    )


def with_hook(hook: Callable[..., Any]) -> Callable[[int], nn.Module]:
    def make(num_classes: int) -> nn.Module:
        model = Head(num_classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old styles are deprecated, and people use them
            hook(model.first)
        return model

    return make


def scripted(num_classes: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, num_classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model)  # type: ignore[no-any-return, no-untyped-call]


def channels_last(num_classes: int) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, num_classes))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def pieces_of_one(num_classes: int) -> nn.Module:
    model, whole = Head(num_classes), torch.randn(2 * WIDTH)
    model.first.bias = nn.Parameter(whole[:WIDTH])
    model.register_parameter("rest", nn.Parameter(whole[WIDTH:]))
    return model


TRAINED: dict[str, Callable[[int], nn.Module]] = {
    "plain": Head, "closure": Closure, "in_a_list_too": InAListToo, "tied": Tied, "shared_layer": SharedLayer,
    "recurrent": Recurrent, "running": Running, "counting": Counting, "assigned": assigned, "views": ReturnsViews,
    "frozen_norm": FrozenNorm, "frozen_by_its_factory": frozen_by_its_factory, "scripted": scripted,
    "channels_last": channels_last, "pieces_of_one": pieces_of_one,
    "weight_norm_old": with_hook(nn.utils.weight_norm),
    "weight_norm": with_hook(nn.utils.parametrizations.weight_norm),
    "spectral_norm_old": with_hook(nn.utils.spectral_norm),
    "spectral_norm": with_hook(nn.utils.parametrizations.spectral_norm),
    "orthogonal": with_hook(lambda layer: nn.utils.parametrizations.orthogonal(layer)),
    "dropout": lambda num_classes: nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, num_classes)),
    "normalised": lambda num_classes: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, num_classes)),
}  # fmt: skip


class Stateful(Head):
    """Keeps a hidden state of a minibatch's size."""

    state: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("state", torch.zeros(10, WIDTH))

    def hidden(self, x: Tensor) -> Tensor:
        found = super().hidden(x) + 0.5 * self.state
        if self.training:
            self.state = found.detach()
        return found


class Packed(Head):
    """Reads sequences of different lengths, none of which is empty: zeros would be."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.lstm = nn.LSTM(8, WIDTH, batch_first=True)

    def hidden(self, x: Tensor) -> Tensor:
        lengths = x.flatten(1, 2).ne(0).any(2).sum(1) - x[:, 0, 0, 0].gt(0).long()
        packed = nn.utils.rnn.pack_padded_sequence(x.flatten(1, 2), lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][-1]  # type: ignore[no-any-return]


TRAINED |= {"stateful": Stateful, "packed": Packed}


class OnlyInAList(Head):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.layers = [nn.Linear(WIDTH, WIDTH)]

    def hidden(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers[0](super().hidden(x))
        return found


class PlainTensor(Head):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.scale = torch.ones(WIDTH, requires_grad=True)

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) * self.scale


class CachedView(Head):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.transposed = self.first.weight.t()

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.transposed)


class CachedNumber(Head):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.numbers = self.first.weight.detach()

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) * self.numbers.norm()


class Replacing(Head):
    def forward(self, x: Tensor) -> Tensor:
        self.first.weight = nn.Parameter(self.first.weight.detach() * 0.9)
        return super().forward(x)


def same_memory(num_classes: int) -> nn.Module:
    model = Tied(num_classes)
    model.again.weight = nn.Parameter(model.middle.weight.data)
    return model


def overlapping(num_classes: int) -> nn.Module:
    model, whole = Head(num_classes), torch.randn(2 * WIDTH)
    model.first.bias = nn.Parameter(whole[:WIDTH])
    model.register_parameter("rest", nn.Parameter(whole[4 : WIDTH + 4]))
    return model


def buffer_of_a_weight(num_classes: int) -> nn.Module:
    model = Head(num_classes)
    model.register_buffer("old", model.first.weight.detach())
    return model


def expanded(num_classes: int) -> nn.Module:
    model = Head(num_classes)
    model.first.bias = nn.Parameter(torch.randn(1).expand(WIDTH))
    return model


def another_each_time(num_classes: int) -> nn.Module:
    FACTORY_CALLS.append(num_classes)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4 + len(FACTORY_CALLS)))


FACTORY_CALLS: list[int] = []

REFUSED: dict[str, tuple[Callable[[int], nn.Module], str]] = {
    "only_in_a_list": (OnlyInAList, "which is none of its parameters"),
    "plain_tensor": (PlainTensor, "uses a tensor in scale of .* which is none of its parameters"),
    "cached_view": (CachedView, "does not follow its parameters"),
    "cached_number": (CachedNumber, "does not follow its parameters"),
    "replacing": (Replacing, "replaces its parameter first.weight"),
    "same_memory": (same_memory, "middle.weight and again.weight share memory"),
    "overlapping": (overlapping, "share memory"),
    "buffer_of_a_weight": (buffer_of_a_weight, "first.weight and old share memory"),
    "expanded": (expanded, "first.bias of .* is expanded"),
    "another_each_time": (another_each_time, "another model the second time"),
}


class OnlyTrains(Head):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise ValueError("no evaluation")
        return super().forward(x)


REFUSED["only_trains"] = (OnlyTrains, "cannot be evaluated: ValueError: no evaluation")


@pytest.fixture(autouse=True)
def own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("ways")
    vars(module).update(TRAINED)
    vars(module).update({name: factory for name, (factory, _) in REFUSED.items()})
    monkeypatch.setitem(sys.modules, "ways", module)


def task_of(name: str) -> ClassificationTask:
    config = Classification(model=f"ways:{name}", optimizer=Optimizer("SGD", {"lr": 0.05, "momentum": 0.9}))
    task = build(config, 3, pictures())
    assert isinstance(task, ClassificationTask)
    return task


def plain_loop(factory: Callable[[int], nn.Module], worker: int, steps: int) -> tuple[list[float], nn.Module]:
    """What anybody writes, with the seeds and the order of a worker."""
    data, order = pictures(), walk(3, worker, 60, 10, CPU)
    torch.manual_seed(key(3, "initial"))
    model = factory(4)
    if factory is not frozen_by_its_factory:
        model.train()
    stepper, losses = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9), []
    for step in range(steps):
        images, labels = data["train_images"][order(step)], data["train_labels"][order(step)]
        torch.manual_seed(key(3, "model", worker, step))
        loss = cross_entropy(model(images), labels)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize("name", TRAINED)
def test_replicas_that_take_turns_train_as_a_plain_loop_each(name: str) -> None:
    task, steps = task_of(name), 7
    vectors = [task.initial() for _ in range(2)]
    learners = [task.learner(worker, vector) for worker, vector in enumerate(vectors)]
    learners[1].warm_up()
    losses = [[learner.minibatch(step)[0] for learner in learners] for step in range(steps)]
    # In the vector parameters lie in the usual order of memory, which other kernels read.
    rounding = {"rtol": 1e-5, "atol": 1e-6} if name == "channels_last" else {"rtol": 0.0, "atol": 0.0}
    for worker, learner in enumerate(learners):
        expected, model = plain_loop(TRAINED[name], worker, steps)
        assert [each[worker] for each in losses] == pytest.approx(expected, rel=rounding["rtol"], abs=0.0)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter, view in zip(trained, task.network.layout.views(vectors[worker]), strict=False):
            assert torch.allclose(parameter.detach(), view, **rounding)
        theirs, ours = dict(model.named_buffers()), {**task.network.buffers, **learner.buffers()}
        theirs |= {each: value for each, value in model.named_parameters() if not value.requires_grad}
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[buffer], ours[buffer]) for buffer in theirs)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_vector_cannot_hold_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ScenarioError, match=REFUSED[name][1]) as caught:
        task_of(name)
    assert caught.value.key == "task.model"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TRAINED)
def test_a_replica_is_evaluated_as_the_plain_model_with_its_own_buffers(name: str) -> None:
    if name in ("counting", "stateful"):
        return  # what it counts is no buffer; a plain model evaluates no shorter minibatches
    task, steps = task_of(name), 7
    params = task.initial()
    learner = task.learner(0, params)
    for step in range(steps):
        learner.minibatch(step)
    kept, buffers = params.clone(), {name: each.clone() for name, each in learner.buffers().items()}
    found = dict(row[1:] for row in task.evaluate(params, learner.buffers(), of_replica=True)[:2])
    _, model = plain_loop(TRAINED[name], 0, steps)
    data = pictures()
    with torch.no_grad():
        outputs = model.eval()(data["test_images"])
    assert found["loss"] == pytest.approx(cross_entropy(outputs, data["test_labels"]).item(), rel=1e-5)
    assert found["error"] == pytest.approx(outputs.argmax(1).ne(data["test_labels"]).float().mean().item())
    assert torch.equal(params, kept)
    assert all(torch.equal(each, buffers[name]) for name, each in learner.buffers().items())


def test_only_what_shares_more_than_parameters_and_buffers_gets_modules_of_its_own() -> None:
    separate = set()
    for name in TRAINED:
        task = task_of(name)
        for worker in range(2):
            task.learner(worker, task.initial())
        if task.network.separate:
            separate.add(name)
    # The old styles of normalising weights, and compiled code, keep in attributes what they compute.
    assert {"counting"} <= separate <= {"counting", "weight_norm_old", "spectral_norm_old", "scripted"}


def test_a_model_of_whole_minibatches_is_evaluated_on_every_sample() -> None:
    """Eight samples are fewer than a minibatch of ten; sixty are six of them."""
    task = task_of("stateful")
    params = task.initial()
    learner = task.learner(0, params)
    for step in range(5):
        learner.minibatch(step)
    found = {row[:2]: row[2] for row in task.evaluate(params, learner.buffers(), of_replica=True)}
    _, model = plain_loop(Stateful, 0, 5)
    data = pictures()
    with torch.no_grad():
        outputs = model.eval()(torch.cat([data["test_images"], data["test_images"][:2]]))[:8]
    assert found["test", "loss"] == pytest.approx(cross_entropy(outputs, data["test_labels"]).item(), rel=1e-5)
    assert ("train", "error") in found


@pytest.mark.parametrize("name", TRAINED)
def test_what_no_checkpoint_would_have_is_refused_where_there_are_checkpoints(name: str) -> None:
    task = task_of(name)
    if name != "counting":
        task.check_resume()
        return
    with pytest.raises(ScenarioError, match="keeps something from one minibatch to the next") as caught:
        task.check_resume()
    assert caught.value.key == "backend.checkpoint"
