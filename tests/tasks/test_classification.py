"""Learners step as a plain PyTorch loop does, as pure functions of their place, and leave everything else alone."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asgd_lab.errors import ProtocolError, ScenarioError
from asgd_lab.tasks import build, load
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.feeds import walk
from tests.tasks.configs import Classification, Optimizer, ordered, pictures

CPU = torch.device("cpu")
MOMENTUM = Optimizer("SGD", {"lr": 0.05, "momentum": 0.9})


def normalised(num_classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.3), nn.Linear(3 * 36, num_classes)),
    )


def partly_used(num_classes: int) -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(2, 2)
            self.frozen = nn.Linear(64, 64).requires_grad_(False)
            self.used = nn.Linear(64, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            answers: Tensor = self.used(self.frozen(images.flatten(1)))
            return answers

    return Model()


@pytest.fixture(autouse=True)
def own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_models")
    vars(module).update(normalised=normalised, partly_used=partly_used)
    monkeypatch.setitem(sys.modules, "own_models", module)


def make(seed: int = 0, samples: int = 60, **chosen: Any) -> ClassificationTask:
    task = build(Classification(**chosen), seed, pictures(samples))
    assert isinstance(task, ClassificationTask)
    return task


@given(
    samples=st.integers(1, 50), batch_size=st.integers(1, 50), worker=st.integers(0, 99), epoch=st.integers(0, 10**6)
)
def test_an_epoch_is_a_permutation(samples: int, batch_size: int, worker: int, epoch: int) -> None:
    batch_size = min(batch_size, samples)
    order, batches = walk(0, worker, samples, batch_size, CPU), samples // batch_size
    walked = torch.cat([order(epoch * batches + batch) for batch in range(batches)])
    assert walked.unique().numel() == walked.numel() == batches * batch_size
    assert 0 <= walked.min() <= walked.max() < samples


def test_orders_differ_across_workers_epochs_and_seeds_and_do_not_depend_on_the_past() -> None:
    def first(seed: int, worker: int, epoch: int) -> list[int]:
        return walk(seed, worker, 50, 10, CPU)(epoch * 5).tolist()

    places = [(seed, worker, epoch) for seed in range(2) for worker in range(3) for epoch in range(3)]
    assert len({tuple(first(*place)) for place in places}) == len(places)
    order = walk(1, 2, 50, 10, CPU)
    backwards = {step: order(step).tolist() for step in reversed(range(15))}
    assert [backwards[step] for step in (0, 5, 10)] == [first(1, 2, epoch) for epoch in range(3)]


@pytest.mark.parametrize(
    ("optimizer", "torchs"),
    [
        (MOMENTUM, lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9)),
        (Optimizer("Adam", {"lr": 0.01}), lambda weights: torch.optim.Adam(weights, lr=0.01)),
    ],
)
def test_a_learner_gives_the_bits_of_a_plain_loop(optimizer: Optimizer, torchs: Callable[..., Any]) -> None:
    data = pictures()
    task = build(Classification(model="lenet", optimizer=optimizer), 3, data)
    params = task.initial()
    learner = task.learner(1, params)
    model = ClassificationTask(Classification(model="lenet"), 3, data).network.fresh(CPU).model
    stepper = torchs(model.parameters())
    order = walk(3, 1, 60, 10, CPU)
    for step in range(13):
        images, labels = data["train_images"][order(step)], data["train_labels"][order(step)]
        stepper.zero_grad()
        answers = model(images)
        loss = cross_entropy(answers, labels)
        loss.backward()
        stepper.step()
        wrong = (answers.argmax(1) != labels).float().mean().item()
        assert learner.minibatch(step) == (loss.item(), pytest.approx(wrong))
    assert torch.equal(params, torch.tensor(task_vector(model)))


def task_vector(model: nn.Module) -> list[float]:
    """The parameters in order, each padded with zeros to 16 elements, but for the last."""
    vector: list[float] = []
    for parameter in model.parameters():
        vector += [0.0] * (-len(vector) % 16) + parameter.flatten().tolist()
    return vector


@pytest.mark.parametrize("model", ["mlp", "own_models:normalised"])
def test_a_minibatch_is_a_pure_function_of_its_place(model: str) -> None:
    def run(seed: int = 0, worker: int = 1, step: int = 8, disturb: bool = False) -> list[float]:
        task = make(0, model=model)
        task._seed = seed  # the same initial parameters
        task.network.recipe = dataclasses.replace(task.network.recipe, seed=seed)
        params = task.initial()
        if disturb:
            other = task.learner(2, task.initial())
            other.minibatch(5)
            torch.rand(7)
        learner = task.learner(worker, params)
        learner.minibatch(step)
        return params.tolist()

    assert run() == run(disturb=True)
    assert len({tuple(each) for each in (run(), run(seed=1), run(worker=2), run(step=9))}) == 4


def test_dropout_differs_from_step_to_step() -> None:
    # One minibatch is the whole of its data, in every order the same sum but for dropout.
    task = make(samples=8, batch_size=8, model="own_models:normalised", optimizer=Optimizer("SGD", {"lr": 1e-9}))
    learner = ordered(task, lambda step: torch.arange(8), 0, task.initial())
    losses = [learner.minibatch(step)[0] for step in (0, 1, 0)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)


def test_the_initial_vector_is_a_function_of_the_seed_alone() -> None:
    first = make(seed=5, model="lenet").initial()
    torch.rand(3)
    state = torch.get_rng_state()
    again = make(seed=5, model="lenet")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again.initial())
    again.initial().zero_()
    assert torch.equal(first, again.initial())
    assert not torch.equal(first, make(seed=6, model="lenet").initial())


def test_the_mean_of_four_quarters_is_the_whole() -> None:
    # n_sync = 1 lock-step mean of 4 minibatches of 25 is one minibatch of 100, to rounding.
    data = load(Classification(train_samples=300))
    task = ClassificationTask(Classification(batch_size=25, model="lenet"), 0, data)
    whole_task = ClassificationTask(Classification(batch_size=100, model="lenet"), 0, data)
    whole_order = walk(0, 0, 300, 100, CPU)

    def gradient(task: ClassificationTask, order: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
        params, gradients = task.initial(), torch.zeros(task.size)
        ordered(task, order, 0, params, gradients).minibatch(0)
        return gradients, params

    quarters = [gradient(task, lambda step, k=k: whole_order(step)[25 * k : 25 * (k + 1)]) for k in range(4)]
    whole = gradient(whole_task, whole_order)
    for part in range(2):
        mean = torch.stack([quarter[part] for quarter in quarters]).mean(0)
        assert torch.allclose(mean, whole[part], rtol=1e-4, atol=1e-7)


def test_gradients_are_gathered_and_others_are_left_zero() -> None:
    task = make(model="own_models:partly_used")
    params, gradients = task.initial(), torch.zeros(task.size)
    learner = task.learner(0, params, gradients)
    for step in range(7):  # more than an epoch
        learner.minibatch(step)
    assert torch.allclose(params, task.initial() - 0.1 * gradients, atol=1e-6)
    assert gradients.count_nonzero() <= 64 * 4 + 4
    assert gradients.count_nonzero() > 200


def test_momentum_can_be_forgotten() -> None:
    task = make(optimizer=MOMENTUM)
    params = task.initial()
    learner = task.learner(0, params)
    learner.minibatch(0)
    first = params.clone()
    params.copy_(task.initial())
    learner.minibatch(0)
    assert not torch.equal(params, first)
    params.copy_(task.initial())
    learner.reset_momentum()
    learner.minibatch(0)
    assert torch.equal(params, first)


@pytest.mark.parametrize("gather", [False, True])
def test_warming_up_leaves_everything_as_it_was(gather: bool) -> None:
    task = make(model="own_models:normalised", optimizer=MOMENTUM)

    def run(warm: bool) -> list[Tensor]:
        params, gradients = task.initial(), torch.zeros(task.size) if gather else None
        learner = task.learner(0, params, gradients)
        for step in range(8):
            state = torch.get_rng_state()
            if warm:
                learner.warm_up()
            assert torch.equal(torch.get_rng_state(), state)
            learner.minibatch(step)
        return [params, torch.zeros(0) if gradients is None else gradients, *learner.buffers().values()]

    assert all(torch.equal(warm, cold) for warm, cold in zip(run(True), run(False), strict=True))


def test_running_statistics_stay_with_their_replica() -> None:
    task = make(model="own_models:normalised")
    one, other = task.learner(0, task.initial()), task.learner(1, task.initial())
    one.minibatch(0)
    assert one.buffers()["1.num_batches_tracked"] == 1
    assert other.buffers() == {}, "they are as at the start"
    assert task.network.buffers["1.num_batches_tracked"] == 0


def test_evaluation_estimates_running_statistics_itself_and_disturbs_nothing() -> None:
    task = make(model="own_models:normalised", samples=300)
    params = task.initial()
    learner = task.learner(0, params)
    for step in range(60):
        learner.minibatch(step)
    kept, state = params.clone(), torch.get_rng_state()
    rows = task.evaluate(params)
    assert torch.equal(params, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert rows == task.evaluate(params)
    # With the statistics of initialisation, mean 0 and variance 1, the same parameters do worse.
    errors = {(split, metric): value for split, metric, value in rows}
    assert list(errors) == [("test", "error"), ("test", "loss"), ("train", "error"), ("train", "loss")]
    assert errors["train", "error"] < 0.25
    # And the statistics are those of the data, as a pass over the whole sample in one batch has them.
    model = learner.module
    model[1].reset_running_stats()
    model[1].momentum = None
    model.train()
    data = pictures(300)
    with torch.no_grad():
        model(data["train_images"])
        loss = cross_entropy(model.eval()(data["test_images"]), data["test_labels"]).item()
    assert errors["test", "loss"] == pytest.approx(loss, rel=0.02)


def test_evaluation_counts_what_is_wrong() -> None:
    data = pictures(600)
    task = ClassificationTask(Classification(model="mlp"), 0, data)
    params = task.initial()
    rows = task.evaluate(params)
    model = task.network.fresh(CPU).model
    answers = model(data["test_images"])
    wrong = answers.argmax(1).ne(data["test_labels"]).float().mean().item()
    assert rows[0] == ("test", "error", pytest.approx(wrong))
    assert rows[1] == ("test", "loss", pytest.approx(cross_entropy(answers, data["test_labels"]).item()))
    whole = cross_entropy(model(data["train_images"]), data["train_labels"]).item()
    assert rows[3] == ("train", "loss", pytest.approx(whole))


def test_digits_are_learned() -> None:
    config = Classification(batch_size=32, optimizer=MOMENTUM)
    task = build(config, 0, load(config))
    params = task.initial()
    learner = task.learner(0, params)
    for step in range(220):
        learner.minibatch(step)
    assert task.evaluate(params)[0][2] < 0.06


def test_sizes_are_stated_with_their_gaps() -> None:
    task = make(model="mlp", model_options={"hidden": [3]})
    assert task.size == 192 + 16 + 16 + 4  # 64·3, 3, 3·4, 4
    assert task.size_bytes == 4 * task.size


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ScenarioError, match="61 is more than the 60 training samples") as caught:
        make(batch_size=61)
    assert caught.value.key == "task.batch_size"


def test_a_vector_of_another_size_is_a_bug_of_the_backend() -> None:
    with pytest.raises(ProtocolError):
        make().learner(0, torch.zeros(3))
