"""Batched minibatches are the sequential ones to rounding, whoever is advanced, how far, and with which optimizer."""

from __future__ import annotations

import functools
import gc
import random
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.backends.sim.numerics import chosen
from asgd_lab.backends.sim.probe import faster_batched
from asgd_lab.errors import ProtocolError, ScenarioError
from asgd_lab.task_keys.optimizers import Clip, Schedule
from asgd_lab.tasks import batched, build, replica_stack
from asgd_lab.tasks.base import Batch, Learner, Taken, Task
from asgd_lab.tasks.batched import StackedBatch
from asgd_lab.tasks.classification import ClassificationTask
from tests.tasks.configs import Classification, Optimizer, Quadratic, Timing, pictures


class Written(nn.Module):
    """A network whose forward pass is a function."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(self, images)


def convolutional(num_classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(20, num_classes)),
    )


def versatile(num_classes: int) -> nn.Module:
    """All arguments of convolutions, all poolings, constants as images, a buffer, dropout that drops nothing."""

    def forward(self: Any, images: Tensor) -> Tensor:
        mask = functional.conv2d(functional.max_pool2d(self.mask, 1), self.first.weight, stride=2, padding=3)
        x = torch.relu(self.first(images)) + mask
        x = functional.avg_pool2d(self.grouped(x), 2, stride=1)
        x = functional.conv2d(input=x, weight=self.kernel, bias=None, padding="same")
        x = functional.max_pool2d(x, kernel_size=2, stride=1, ceil_mode=True)
        answers: Tensor = self.last(functional.adaptive_avg_pool2d(self.none(self.norm(x)), (1, 2)).view(-1, 8))
        return answers

    network = Written(
        forward, first=nn.Conv2d(1, 4, 3, stride=2, padding=3, bias=False), none=nn.Dropout(0.0),
        norm=nn.GroupNorm(2, 4), grouped=nn.Conv2d(4, 6, 2, dilation=2, groups=2),
        kernel=nn.Parameter(torch.rand(4, 6, 3, 3) / 9), last=nn.Linear(8, num_classes),
    )  # fmt: skip
    network.register_buffer("mask", torch.linspace(0, 1, 64).view(1, 1, 8, 8))
    return network


def in_place(num_classes: int) -> nn.Module:
    return Written(lambda self, images: self.last(images.mul_(0.5).flatten(1)), last=nn.Linear(64, num_classes))


def partly_used(num_classes: int) -> nn.Module:
    frozen = nn.Linear(64, 8).requires_grad_(False)
    return Written(
        lambda self, images: self.used(self.frozen(images.flatten(1))) * self.scale,
        frozen=frozen, unused=nn.Linear(2, 2), scale=nn.Parameter(torch.tensor(0.5)), used=nn.Linear(8, num_classes),
    )  # fmt: skip


def tied(num_classes: int) -> nn.Module:
    one, two = nn.Linear(64, 64), nn.Linear(64, 64)
    two.weight = one.weight
    return Written(
        lambda self, images: self.last(torch.tanh(self.two(torch.tanh(self.one(images.flatten(1)))))),
        one=one, two=two, last=nn.Linear(64, num_classes),
    )  # fmt: skip


def linear(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes, bias=False))


def dropping(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, num_classes))


def normalising(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, num_classes))


def branching(num_classes: int) -> nn.Module:
    def forward(self: Any, images: Tensor) -> Tensor:
        answers: Tensor = self.last(images.flatten(1))
        return answers if answers.mean() > 0 else -answers

    return Written(forward, last=nn.Linear(64, num_classes))


def without_rule(num_classes: int) -> nn.Module:
    """With a pooling that vmap has no rule for."""

    def forward(self: Any, images: Tensor) -> Tensor:
        pooled = functional.fractional_max_pool2d(images, 2, 4, _random_samples=self.where[: len(images)])
        answers: Tensor = self.last(pooled.flatten(1))
        return answers

    return Written(
        forward, where=nn.Parameter(torch.rand(9, 1, 2), requires_grad=False), last=nn.Linear(16, num_classes)
    )


def secretly_random(num_classes: int) -> nn.Module:
    return Written(lambda self, images: self.last(images.flatten(1)) * random.random(), last=nn.Linear(64, num_classes))


def with_a_teacher(num_classes: int) -> nn.Module:
    """A frozen average of its weights, which it writes in its forward pass and which hardly moves."""
    teacher, student = nn.Linear(64, num_classes), nn.Linear(64, num_classes)
    teacher.load_state_dict(student.state_dict())

    def forward(self: Any, images: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                for one, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    one.mul_(0.999).add_(other, alpha=0.001)
        answers: Tensor = self.student(images.flatten(1)) + self.teacher(images.flatten(1))
        return answers

    return Written(forward, teacher=teacher.requires_grad_(False), student=student)


def bounded(num_classes: int) -> nn.Module:
    """Gives its weights other data that are no greater than 0.1."""

    def forward(self: Any, images: Tensor) -> Tensor:
        self.last.weight.data = self.last.weight.data.clamp(-0.1, 0.1)
        answers: Tensor = self.last(images.flatten(1))
        return answers

    return Written(forward, last=nn.Linear(64, num_classes))


def stepped_backward(num_classes: int) -> nn.Module:
    """Each weight is stepped as soon as it has its gradient."""
    network = linear(num_classes)
    for weight in network.parameters():
        own = torch.optim.SGD([weight], lr=0.05)
        weight.register_post_accumulate_grad_hook(lambda _, own=own: own.step())
    return network


@pytest.fixture(autouse=True)
def own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", OWN)


OWN = types.ModuleType("own")
vars(OWN).update(globals())
OWN_MODELS = ("convolutional", "versatile", "in_place", "partly_used", "tied")
SMALL = {"model": "mlp", "model_options": {"hidden": [6]}}


def make(**chosen: Any) -> ClassificationTask:
    task = build(Classification(**({"batch_size": 5} | chosen)), 0, pictures(40))
    assert isinstance(task, ClassificationTask)
    return task


class Crew:
    """Learners at parameters of their own, whose minibatches are counted; all but the first may sum gradients."""

    def __init__(self, task: ClassificationTask, count: int, accumulate: bool = False) -> None:
        starts = [task.initial() * (1 + worker / 10) for worker in range(count)]
        self.params = starts
        self.sums = [torch.zeros_like(start) if accumulate and worker else None for worker, start in enumerate(starts)]
        self.learners = [task.learner(*each) for each in zip(range(count), self.params, self.sums, strict=True)]
        self.taken = [0] * count

    def alone(self, steps: dict[int, int]) -> list[Taken]:
        answers = []
        for worker, count in steps.items():
            first = self.taken[worker]
            taken = [self.learners[worker].minibatch(step) for step in range(first, first + count)]
            answers.append(([loss for loss, _ in taken], [error for _, error in taken]))
            self.taken[worker] += count
        return answers

    def together(self, batch: Batch, steps: dict[int, int]) -> list[Taken]:
        rounds = [(self.learners[worker], self.taken[worker], count) for worker, count in steps.items()]
        answers = batch.advance(rounds)
        for worker, count in steps.items():
            self.taken[worker] += count
        return answers

    def reset(self, steps: dict[int, int]) -> None:
        for worker in steps:
            self.learners[worker].reset_momentum()


def assert_taken_alike(found: list[Taken], expected: list[Taken]) -> None:
    for (losses, errors), (their_losses, their_errors) in zip(found, expected, strict=True):
        np.testing.assert_allclose(losses, their_losses, rtol=1e-4, atol=1e-5)
        assert errors == their_errors


def assert_alike(found: Crew, expected: Crew) -> None:
    torch.testing.assert_close(found.params, expected.params, rtol=1e-3, atol=1e-5)
    for sums, theirs in zip(found.sums, expected.sums, strict=True):
        if sums is not None:
            torch.testing.assert_close(sums, theirs, rtol=1e-3, atol=1e-5)
    for one, other in zip(found.learners, expected.learners, strict=True):
        remembered = {place: state for place, state in one.optimizer.state_dict()["state"].items() if state}
        torch.testing.assert_close(remembered, other.optimizer.state_dict()["state"], rtol=1e-3, atol=1e-5)


OPTIMIZERS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.5, "maximize": True},
    ],
    "Adam": [{}, {"amsgrad": True, "weight_decay": 0.1, "betas": [0.8, 0.9]}],
    "AdamW": [{"weight_decay": 0.1}],
    "Adadelta": [{"lr": 1.0}],
    "Adagrad": [{"initial_accumulator_value": 0.1}],
    "Adamax": [{}],
    "ASGD": [{}],
    "NAdam": [{}],
    "RAdam": [{}],
    "RMSprop": [{"momentum": 0.9, "centered": True}],
    "Rprop": [{}],
}


@pytest.mark.parametrize(("name", "options"), [(name, each) for name, all in OPTIMIZERS.items() for each in all])
def test_every_optimizer_that_steps_element_by_element_steps_as_alone(name: str, options: dict[str, Any]) -> None:
    task = make(model="own:linear", optimizer=Optimizer(name, {"lr": 0.01} | options))
    batch, found, expected = task.batch(), Crew(task, 2), Crew(task, 2)
    for steps in ({0: 2, 1: 2}, {1: 1}, {0: 3, 1: 1}, {0: 1, 1: 2}):
        assert_taken_alike(found.together(batch, steps), expected.alone(steps))
        assert_alike(found, expected)
        if steps == {1: 1}:  # from here on one begins anew while the other remembers
            found.reset({0: 0})
            expected.reset({0: 0})
    assert_taken_alike(found.alone({1: 2, 0: 1}), expected.alone({1: 2, 0: 1}))
    assert_alike(found, expected)


@pytest.mark.parametrize("model", ["lenet", *(f"own:{name}" for name in OWN_MODELS)])
def test_every_model_learns_as_alone(model: str) -> None:
    task = make(model=model, optimizer=Optimizer("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.05}))
    batch, found, expected = task.batch(), Crew(task, 2, True), Crew(task, 2, True)
    for steps in ({1: 3, 0: 2}, {0: 1}):
        assert_taken_alike(found.together(batch, steps), expected.alone(steps))
        assert_alike(found, expected)


@pytest.mark.parametrize(
    "optimizer", [Optimizer("SGD", {"lr": 0.01, "momentum": 0.9}), Optimizer("Adam", {"lr": 0.01})]
)
@pytest.mark.parametrize(
    "chosen",
    [
        {"schedule": Schedule(name="step", every=2, factor=0.1)},
        {"schedule": Schedule(name="cosine", length=6, final=0.2, warmup=2)},
        {"schedule": Schedule(name="linear", length=50, clock="versions")},
        {"clip": Clip(norm=0.5)},
        {"clip": Clip(value=0.01), "schedule": Schedule(name="constant", warmup=5)},
    ],
)
def test_rates_and_gradients_are_adjusted_as_alone(optimizer: Optimizer, chosen: dict[str, Any]) -> None:
    task = make(model="own:convolutional", optimizer=optimizer, **chosen)
    plain = make(model="own:convolutional", optimizer=optimizer)
    batch, found, expected, other = task.batch(), *(Crew(each, 3, True) for each in (task, task, plain))
    for crew in (found, expected, other):
        for learner, version in zip(crew.learners, (5, 20, 45), strict=True):
            learner.version = version
    # Clocks that are alike, that part, and that meet again; momentum of some and not of others.
    for steps in ({0: 2, 1: 3}, {2: 1}, {0: 1, 1: 1, 2: 3}, {0: 2, 1: 1, 2: 1}):
        assert_taken_alike(found.together(batch, steps), expected.alone(steps))
        assert_alike(found, expected)
        other.alone(steps)
    for params, others in zip(found.params, other.params, strict=True):
        assert not torch.allclose(params, others, rtol=1e-2, atol=1e-4), "the adjustment is seen"
    assert_taken_alike(found.alone({0: 2, 1: 1}), expected.alone({0: 2, 1: 1}))
    assert_alike(found, expected)


@functools.cache
def shared() -> tuple[ClassificationTask, Batch]:
    task = make(**SMALL, optimizer=Optimizer("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}))
    return task, task.batch()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["together", "together", "alone", "reset", "fetch"]),
            st.dictionaries(st.integers(0, 5), st.integers(0, 3), min_size=1),
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
@settings(max_examples=25)
def test_rounds_together_and_alone_may_alternate(acts: list[tuple[str, dict[int, int]]], accumulate: bool) -> None:
    task, batch = shared()
    found, expected = Crew(task, 6, accumulate), Crew(task, 6, accumulate)
    for act, steps in acts:
        if act == "together":
            assert_taken_alike(found.together(batch, steps), expected.alone(steps))
        elif act == "alone":
            assert_taken_alike(found.alone(steps), expected.alone(steps))
        else:
            for crew in (found, expected):
                if act == "reset":
                    crew.reset(steps)
                else:
                    for worker in steps:
                        crew.params[worker].copy_(task.initial())
    assert_alike(found, expected)


def test_the_same_calls_give_the_same_bytes_in_any_order_of_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "_HIGHEST", 2)  # so that who shares a stack matters

    def run(*orders: Sequence[int]) -> tuple[list[Taken], list[list[float]]]:
        task = make(model="lenet", optimizer=Optimizer("Adam", {"lr": 0.01}))
        batch, crew, answers = task.batch(), Crew(task, 3), []
        for order in orders:
            taken = crew.together(batch, dict.fromkeys(order, 3))
            answers += [taken[order.index(worker)] for worker in range(3)]
        return answers, [params.tolist() for params in crew.params]

    assert run((0, 1, 2), (0, 1, 2)) == run((2, 1, 0), (1, 2, 0))


def test_there_may_be_more_learners_than_a_stack_is_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "_KEPT_BYTES", 0)
    task, _ = shared()
    found, expected, steps = Crew(task, 3), Crew(task, 3), {0: 1, 1: 3, 2: 2}
    assert_taken_alike(found.together(task.batch(), steps), expected.alone(steps))
    assert_alike(found, expected)


def test_a_stack_is_the_lower_the_more_a_replica_keeps() -> None:
    def height(batch_size: int) -> int:
        config = Classification(model="own:convolutional", batch_size=batch_size)
        batch = ClassificationTask(config, 0, pictures(batch_size)).batch()
        assert isinstance(batch, StackedBatch)
        return len(batch._params.rows)

    assert height(20) == 32
    assert 1 < height(2000) < 10


def test_a_replica_that_diverges_leaves_the_others_alone() -> None:
    task = make(model="own:convolutional", optimizer=Optimizer("SGD", {"lr": 0.05, "momentum": 0.9}))
    batch = task.batch()
    for diverged, other in ((0, 1), (1, 0)):
        found, sound = Crew(task, 2), Crew(task, 2)
        found.params[diverged].fill_(float("nan"))
        answers, expected = found.together(batch, {0: 3, 1: 3}), sound.together(batch, {0: 3, 1: 3})
        assert np.isnan(answers[diverged][0]).all()
        assert answers[other] == expected[other]
        assert torch.equal(found.params[other], sound.params[other])


def test_a_round_of_nothing_changes_nothing() -> None:
    task, batch = shared()
    crew = Crew(task, 2)
    before = [params.clone() for params in crew.params]
    assert crew.together(batch, {0: 0, 1: 0}) == [([], []), ([], [])]
    assert batch.advance([]) == []
    assert all(torch.equal(params, start) for params, start in zip(crew.params, before, strict=True))


def test_whoever_is_not_in_a_call_stays_as_it_was() -> None:
    task, batch = shared()
    crew = Crew(task, 3)
    crew.together(batch, {0: 1, 1: 1, 2: 1})
    params = crew.params[1].clone()
    state = [buffer["momentum_buffer"].clone() for buffer in crew.learners[1].optimizer.state.values()]
    initial, noise = task.initial(), torch.get_rng_state()
    crew.together(batch, {0: 2, 2: 3})
    assert torch.equal(crew.params[1], params)
    now = [buffer["momentum_buffer"] for buffer in crew.learners[1].optimizer.state.values()]
    assert all(torch.equal(one, other) for one, other in zip(now, state, strict=True))
    assert torch.equal(task.initial(), initial)
    assert torch.equal(torch.get_rng_state(), noise)


def test_what_a_learner_remembers_is_its_own_memory() -> None:
    task, batch = shared()
    crew = Crew(task, 2)
    crew.together(batch, {0: 1, 1: 1})
    kept = [buffer["momentum_buffer"] for buffer in crew.learners[0].optimizer.state.values()]
    assert [buffer.untyped_storage().nbytes() for buffer in kept] == [4 * buffer.numel() for buffer in kept]
    crew.together(batch, {0: 1})
    assert all(
        buffer["momentum_buffer"] is old
        for buffer, old in zip(crew.learners[0].optimizer.state.values(), kept, strict=True)
    )


def test_frozen_weights_may_differ_from_replica_to_replica() -> None:
    task = make(model="own:partly_used")
    batch, found, expected = task.batch(), Crew(task, 2), Crew(task, 2)
    for crew in (found, expected):
        crew.learners[1].parameters["frozen.weight"].mul_(-2)
    assert_taken_alike(found.together(batch, {0: 2, 1: 2}), expected.alone({0: 2, 1: 2}))
    assert_alike(found, expected)


@pytest.mark.parametrize(
    ("model", "optimizer", "words"),
    [
        ("own:dropping", "SGD", "draws random numbers"),
        ("own:normalising", "SGD", r"changes the model's buffer 1\.running_mean"),
        ("own:branching", "SGD", "vmap refuses the model.*data-dependent control flow"),
        ("own:without_rule", "SGD", "not yet implemented the batching rule for aten::fractional_max_pool2d"),
        ("own:secretly_random", "SGD", "keeps something .* or draws from Python's generator"),
        ("own:with_a_teacher", "SGD", "changes its parameters in its forward or backward pass"),
        ("own:bounded", "SGD", "(vmap refuses the model|in its forward or backward pass)"),
        ("own:stepped_backward", "SGD", "changes its parameters in its forward or backward pass"),
        ("own:linear", "Adafactor", "optimizer does not step element by element"),
        ("own:linear", "Muon", "optimizer does not step element by element"),
    ],
)
def test_what_cannot_be_batched_is_refused_in_one_line(model: str, optimizer: str, words: str) -> None:
    task = make(model=model, optimizer=Optimizer(optimizer, {"lr": 0.1}))
    noise, buffers = torch.get_rng_state(), dict(task.network.buffers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ScenarioError, match=f"^cannot be batched: .*{words}.*; use sequential$") as caught:
            task.batch()
    assert caught.value.key == "backend.numerics"
    assert torch.equal(torch.get_rng_state(), noise)
    model = task.network.fresh(torch.device("cpu")).model
    fresh = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    assert all(torch.equal(fresh[name], buffer) for name, buffer in buffers.items())


def test_a_record_that_does_not_hold_for_other_contents_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(function: Callable[..., Any], arguments: Sequence[Tensor]) -> tuple[Callable[..., Any], Any]:
        outputs = function(*arguments)
        return lambda *_: outputs, outputs

    monkeypatch.setattr(replica_stack, "record", stale)
    with pytest.raises(ScenarioError, match="something else together than alone"):
        make(model="own:linear").batch()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_other_parameters_after_steps_together_than_alone_are_found(
    monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    task = make(model="own:linear", optimizer=Optimizer(optimizer, {"lr": 0.05}))
    task.batch()
    take = StackedBatch.advance

    def forgetting_the_last(self: StackedBatch, rounds: Sequence[tuple[Learner, int, int]]) -> list[Taken]:
        return take(self, [(learner, first, max(1, steps - 1)) for learner, first, steps in rounds])

    monkeypatch.setattr(StackedBatch, "advance", forgetting_the_last)
    with pytest.raises(ScenarioError, match="parameters are others together than alone; use sequential"):
        task.batch()


@pytest.mark.parametrize("model", ["with_a_teacher", "bounded", "stepped_backward"])
def test_where_steps_together_would_train_another_model_auto_takes_them_one_by_one(model: str) -> None:
    from tests.backends.scenarios import scenario

    task = {"name": "classification", "dataset": "digits", "model": f"own:{model}", "train_samples": 64}
    stated = scenario(backend={"name": "sim", "numerics": "auto"}, task=task, workers=2)
    facts = chosen(stated, make(model=f"own:{model}"), torch.device("cpu")).facts
    assert facts["numerics"]["mode"] == "sequential"
    assert facts["numerics"]["because"].startswith("cannot be batched: ")


def test_a_learner_in_two_rounds_of_one_call_is_a_bug_of_the_backend() -> None:
    task, batch = shared()
    learner = task.learner(0, task.initial())
    with pytest.raises(ProtocolError, match="two rounds"):
        batch.advance([(learner, 0, 1), (learner, 1, 1)])


@pytest.mark.parametrize("config", [Quadratic(noise=1.0), Timing()])
def test_a_task_that_gains_nothing_gives_the_very_bits(config: Any) -> None:
    task: Task = build(config, 3, {})
    own = [[task.initial() for _ in range(2)] for _ in range(2)]
    alone, together = ([task.learner(worker, params) for worker, params in enumerate(each)] for each in own)
    expected = [[learner.minibatch(step) for step in (4, 5)] for learner in alone]
    found = task.batch().advance([(learner, 4, 2) for learner in together])
    assert repr(found) == repr([([a, c], [b, d]) for (a, b), (c, d) in expected])
    assert [params.tolist() for params in own[0]] == [params.tolist() for params in own[1]]


class Repeated:
    """Does everything so many times."""

    height = 8

    def __init__(self, times: int) -> None:
        self.times, self.calls = times, 0

    def advance(self, rounds: Sequence[tuple[Learner, int, int]]) -> list[Taken]:
        self.calls += 1
        for learner, first, steps in rounds:
            for step in range(first, first + steps):
                for _ in range(self.times):
                    learner.minibatch(step)
        return []


def test_the_probe_compares_the_time_of_a_minibatch() -> None:
    task, _ = shared()
    assert faster_batched(task, Repeated(0), 8, 4)[0]
    four_times = Repeated(4)
    slower, ratio = faster_batched(task, four_times, 8, 4)
    assert not slower
    assert 0.1 < ratio < 0.6
    assert four_times.calls == 3  # the first, and two that decide


def test_a_sequential_choice_keeps_nothing_of_the_batch_that_it_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.backends.scenarios import scenario

    monkeypatch.setattr("asgd_lab.backends.sim.numerics.faster_batched", lambda *_: (False, 1.0))
    stated = scenario(backend={"name": "sim", "numerics": "auto"}, workers=2)
    before = batches_alive()
    gc.disable()  # as while a simulation is made
    try:
        assert chosen(stated, make(), torch.device("cpu")).facts["numerics"]["mode"] == "sequential"
        assert batches_alive() == before
    finally:
        gc.enable()


def batches_alive() -> int:
    return sum(type(each) is StackedBatch for each in gc.get_objects())


def test_auto_tries_nothing_where_a_pass_has_one_replica() -> None:
    from tests.backends.scenarios import scenario

    stated = scenario(backend={"name": "sim", "numerics": "auto"}, workers=2)
    facts = chosen(stated, build(Quadratic(noise=1.0), 3, {}), torch.device("cpu")).facts
    assert facts["numerics"] == {"mode": "sequential", "because": "a pass over replicas has room for one"}


def test_the_probe_leaves_everything_as_it_was() -> None:
    task, batch = shared()
    crew, other = Crew(task, 2), Crew(task, 2)
    steps = {0: 2, 1: 1}
    first = crew.together(batch, steps)
    noise, initial = torch.get_rng_state(), task.initial()
    faster_batched(task, batch, 3, 2)
    assert torch.equal(torch.get_rng_state(), noise)
    assert torch.equal(task.initial(), initial)
    second = crew.together(batch, steps)
    assert [first, second] == [other.together(batch, steps), other.together(batch, steps)]
    assert [params.tolist() for params in crew.params] == [params.tolist() for params in other.params]
