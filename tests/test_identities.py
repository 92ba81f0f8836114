"""Identities: algorithms that must be the same thing, exactly or to rounding, on every backend that runs here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from asgd_lab.backends.build import build_algorithm, build_budget, build_task
from asgd_lab.backends.inline import Inline, order_of
from asgd_lab.backends.inline_observers import Observer
from asgd_lab.protocol.client import Step
from asgd_lab.protocol.messages import PushRequest
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Learner, Task
from asgd_lab.tasks.base import Bufferless
from asgd_lab.tasks.classification import ClassificationTask
from tests.backends.virtual import scenario, simulate
from tests.tasks.configs import ordered

BACKENDS = ["inline", "sim"]
Config = dict[str, Any]


def quadratic(**optimizer: float) -> Config:
    options = {"name": "SGD", "lr": 0.1, **optimizer}
    return {"name": "quadratic", "curvature": [0.25, 1.0, 4.0], "noise": 0.5, "optimizer": options}


def digits(batch_size: int = 25, **optimizer: float) -> Config:
    options = {"name": "SGD", "lr": 0.05, **optimizer}
    model = {"model": "mlp", "model_options": {"hidden": [16]}}
    return {"name": "classification", "dataset": "digits", **model, "batch_size": batch_size, "optimizer": options}


TASKS = {"quadratic": quadratic, "digits": digits}
both_backends = pytest.mark.parametrize("backend", BACKENDS)
both_tasks = pytest.mark.parametrize("task", TASKS)


def final(backend: str, stated: Scenario, task: Task | None = None) -> Tensor:
    """The server's last parameters; inline everybody takes turns, in the simulation a minibatch takes a second."""
    task = task or build_task(stated)
    if backend == "inline":
        lab = Inline(task, build_algorithm(stated), build_budget(stated), stated.workers)
        lab.run()
        return lab.parameters.clone()
    params = simulate(stated, task).outcome.params
    assert params is not None
    return torch.from_numpy(params).clone()


def plain(task: Task, minibatches: int) -> Tensor:
    """A loop without any of the protocol: worker 0's minibatches, one after the other."""
    params = task.initial()
    learner = task.learner(0, params)
    for step in range(minibatches):
        learner.minibatch(step)
    return params


def assert_equal_to_rounding(ours: Tensor, theirs: Tensor, initial: Tensor) -> None:
    """Float32 rounding of the parameters' size, some tens of times over; and the run did go somewhere."""
    assert (theirs - initial).abs().max() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-5)


# ---------------------------------------------------------------- one worker is plain SGD


@both_backends
@both_tasks
@pytest.mark.parametrize("n_sync", [1, 4, 30, 50])
@pytest.mark.parametrize("name", ["sgd", "asgd"])
def test_one_worker_with_any_n_sync_is_plain_sgd_to_rounding(backend: str, task: str, n_sync: int, name: str) -> None:
    """To rounding: the server adds params - center to the center. The local momentum is kept at a fetch."""
    rule = {"rule": ["add"]} if name == "asgd" else {}
    stated = scenario(TASKS[task](momentum=0.5), {"name": name, "n_sync": n_sync, **rule}, budget={"minibatches": 30})
    built = build_task(stated)
    assert_equal_to_rounding(final(backend, stated), plain(built, 30), built.initial())


@both_tasks
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_until_its_first_push_one_worker_is_plain_sgd_bit_for_bit(task: str, momentum: float) -> None:
    stated = scenario(TASKS[task](momentum=momentum), {"name": "sgd", "n_sync": 30}, budget={"minibatches": 30})
    built = build_task(stated)
    seen: list[Tensor] = []

    class Watch(Observer):
        def step(self, worker: int, step: Step) -> None:
            if isinstance(step, PushRequest):
                vectors = lab.workers[worker].replica.vectors
                assert vectors is not None
                seen.append(vectors.params.clone())

    lab = Inline(built, build_algorithm(stated), build_budget(stated), 1, observer=Watch())
    lab.run()
    assert len(seen) == 1
    assert torch.equal(seen[0], plain(built, 30))


@both_backends
@both_tasks
def test_downpour_with_every_gradient_pushed_and_fetched_is_sgd_bit_for_bit(backend: str, task: str) -> None:
    """Dean et al. 2012 with n_fetch = n_push = 1, one worker and SGD at the server; the local rate does not matter."""
    lr = TASKS[task]()["optimizer"]["lr"]
    algorithm = {"name": "asgd", "n_sync": 1, "push": "gradient", "rule": [{"name": "sgd", "lr": lr}]}
    stated = scenario(TASKS[task](lr=0.5), algorithm, budget={"minibatches": 30})
    theirs = plain(build_task(scenario(TASKS[task]())), 30)
    assert torch.equal(final(backend, stated), theirs)


@both_backends
@both_tasks
def test_momentum_that_every_fetch_resets_is_no_momentum_bit_for_bit(backend: str, task: str) -> None:
    algorithm = {"name": "asgd", "n_sync": 1, "rule": ["add"], "momentum_at_fetch": "reset"}
    with_momentum = scenario(TASKS[task](momentum=0.9), algorithm, budget={"minibatches": 20})
    without = scenario(TASKS[task](), algorithm, budget={"minibatches": 20})
    assert torch.equal(final(backend, with_momentum), final(backend, without))


# ---------------------------------------------------------------- lock-step


class InOrder(Bufferless):
    """A classification task whose workers each take their part of shared minibatches of `size` samples."""

    def __init__(self, task: ClassificationTask, size: int, workers: int, steps: int) -> None:
        source = torch.Generator().manual_seed(4)
        self.task, self.part = task, size // workers
        self.index = torch.stack([torch.randperm(1000, generator=source)[:size] for _ in range(steps)])
        self.size, self.size_bytes = task.size, task.size_bytes
        self.initial, self.evaluate = task.initial, task.evaluate

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> Learner:
        mine = slice(worker * self.part, (worker + 1) * self.part)
        return ordered(self.task, lambda step: self.index[step, mine], worker, params, gradients)


@both_backends
@pytest.mark.parametrize(("push", "momentum"), [("delta", 0.0), ("delta", 0.9), ("gradient", 0.0)])
def test_lock_step_of_four_times_25_is_sgd_with_a_minibatch_of_100(backend: str, push: str, momentum: float) -> None:
    """To rounding; for any optimizer that is linear in the gradient, so with kept local momentum too."""
    rule = [{"name": "mean"}] + ([{"name": "sgd", "lr": 0.05}] if push == "gradient" else [])
    algorithm = {"name": "sync_sgd", "n_sync": 1, "push": push, "rule": rule}
    stated = scenario(digits(momentum=momentum), algorithm, workers=4, budget={"minibatches": 4 * 20})
    task = build_task(stated)
    assert isinstance(task, ClassificationTask)
    ours = final(backend, stated, InOrder(task, 100, workers=4, steps=20))
    assert_equal_to_rounding(ours, plain(InOrder(task, 100, workers=1, steps=20), 20), task.initial())


@both_backends
@both_tasks
@pytest.mark.parametrize("n_sync", [1, 3])
def test_bound_zero_in_synchronous_order_is_lock_step_to_rounding(backend: str, task: str, n_sync: int) -> None:
    """Ho et al. 2013: SSP with s = 0 whose workers all fetch, all train and all push adds d/M for each of M."""
    budget = {"minibatches": 4 * n_sync * 8}
    one = scenario(TASKS[task](), {"name": "ssp", "n_sync": n_sync, "bound": 0, "rule": ["scale"]}, 4, budget)
    two = scenario(TASKS[task](), {"name": "sync_sgd", "n_sync": n_sync, "rule": ["mean"]}, 4, budget)
    assert_equal_to_rounding(final(backend, one), final(backend, two), build_task(one).initial())


@both_backends
@both_tasks
def test_the_mean_of_a_collected_round_of_one_is_that_push_bit_for_bit(backend: str, task: str) -> None:
    one = scenario(TASKS[task](), {"name": "sync_sgd", "n_sync": 3, "rule": ["mean"]}, budget={"minibatches": 20})
    two = scenario(TASKS[task](), {"name": "asgd", "n_sync": 3, "rule": ["add"]}, budget={"minibatches": 20})
    assert torch.equal(final(backend, one), final(backend, two))


@both_tasks
def test_lock_step_gives_the_same_bits_on_both_backends_whatever_the_speeds(task: str) -> None:
    """Rounds are summed in worker order: which of the random step times is longest does not show."""
    hardware = {"compute": {"step_s": 1.0, "distribution": "exponential"}, "server": {"push_s": 0.3}}
    algorithm = {"name": "sync_sgd", "n_sync": 2, "rule": ["mean", {"name": "momentum", "beta": 0.5}]}
    stated = scenario(TASKS[task](), algorithm, 4, {"minibatches": 61}, hardware)
    assert torch.equal(final("inline", stated), final("sim", stated))


@pytest.mark.parametrize(
    "budget",
    [
        {"minibatches": 30},
        {"updates": 30},
    ],
    ids=str,
)
def test_a_simulated_run_repeated_inline_in_its_recorded_order_gives_the_same_bits(budget: Config) -> None:
    hardware = {"compute": {"step_s": 1.0, "distribution": "exponential"}, "server": {"push_s": 0.1}}
    stated = scenario(quadratic(), {"name": "asgd", "n_sync": 1}, 3, budget, hardware)
    run = simulate(stated)
    lab = Inline(build_task(stated), build_algorithm(stated), build_budget(stated), 3)
    lab.run(order_of(run.effects))
    assert run.outcome.params is not None
    assert lab.server.version == run.outcome.updates
    assert lab.parameters.tolist() == run.outcome.params.tolist()


# ---------------------------------------------------------------- n_fetch != n_push


class Watched(Bufferless):
    """A task that remembers, in double precision, how far local steps went, and all gradients it saw."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.size, self.size_bytes, self.evaluate, self.initial = (
            task.size, task.size_bytes, task.evaluate, task.initial,
        )  # fmt: skip
        self.moved = torch.zeros(task.size, dtype=torch.float64)
        self.minibatches = 0

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> Learner:
        inner, watched = self.task.learner(worker, params, gradients), self

        class Inner:
            reset_momentum, warm_up, buffers = inner.reset_momentum, inner.warm_up, inner.buffers

            def minibatch(self, step: int) -> tuple[float, float]:
                before = params.double()
                told = inner.minibatch(step)
                watched.moved += params.double() - before
                watched.minibatches += 1
                return told

        return Inner()


@both_backends
@both_tasks
@pytest.mark.parametrize(("n_fetch", "n_push"), [(2, 5), (5, 2), (3, 4), (6, 2), (2, 6)])
@pytest.mark.parametrize("workers", [1, 3])
def test_n_fetch_and_n_push_that_differ_lose_no_work_and_repeat_none(
    backend: str, task: str, n_fetch: int, n_push: int, workers: int
) -> None:
    """The server's parameters have moved by the sum of all local steps, to rounding, whatever was fetched between."""
    algorithm = {"name": "asgd", "n_fetch": n_fetch, "n_push": n_push, "rule": ["add"]}
    stated = scenario(TASKS[task](), algorithm, workers, {"minibatches": 31})
    watched = Watched(build_task(stated))
    ours = final(backend, stated, watched)
    assert watched.minibatches == 31
    assert_equal_to_rounding(ours, (watched.initial().double() + watched.moved).float(), watched.initial())


@both_backends
@both_tasks
@pytest.mark.parametrize("n_push", [1, 3])
def test_one_worker_that_fetches_only_after_it_pushed_is_plain_sgd_to_rounding(
    backend: str, task: str, n_push: int
) -> None:
    """n_fetch a multiple of n_push: the center holds all the worker's work when it is fetched."""
    algorithm = {"name": "asgd", "n_fetch": 6, "n_push": n_push, "rule": ["add"]}
    stated = scenario(TASKS[task](), algorithm, budget={"minibatches": 30})
    built = build_task(stated)
    assert_equal_to_rounding(final(backend, stated), plain(built, 30), built.initial())
