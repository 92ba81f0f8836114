"""Rivals: minibatches a second of the process backend beside PyTorch's own Hogwild pattern and DistributedDataParallel.

All take the same minibatch of the same network over the same tensors, one thread a process, and are timed from a
barrier to the last process's end, start-up excluded. They take turns within each repetition. DistributedDataParallel
synchronises every step, whatever n_sync; beside it stands local SGD, which averages parameters over gloo every n_sync.
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import load, models
from asgd_lab.tasks.base import Data
from tests.benchmarks.report import Row

TASK = {
    "name": "classification",
    "dataset": "fashion-mnist",
    "model": "lenet",
    "batch_size": 32,
    "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
}
SAMPLES = 6_400
MINIBATCHES = 2000  # of each worker, so that a last round of 100 is a small part
REPEATS = 3
CASES = ((1, 100), (2, 1), (2, 10), (2, 100))  # workers, n_sync
Line = Any
Train = Callable[[nn.Module, Data, int, int, int], None]
"""(the model, the data, the worker's number, n_sync, minibatches)"""


def stated(task: dict[str, Any], workers: int, algorithm: dict[str, Any], count: int = 1) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "rivals", "task": task, "algorithm": algorithm, "workers": workers, "backend": "process",
            "budget": {"minibatches": workers * count}, "record": "summary",
        }
    )  # fmt: skip


def ours(task: dict[str, Any], workers: int, algorithm: dict[str, Any], count: int) -> float:
    """Minibatches a second of a run."""
    with tempfile.TemporaryDirectory() as folder:
        summary = execute(stated(task, workers, algorithm, count), Path(folder) / "run")
    rate: float = summary["minibatches_per_s"]
    return rate


def batches(data: Data, worker: int) -> Any:
    """Indices of one worker's minibatches, a permutation an epoch."""
    random = torch.Generator().manual_seed(worker)
    while True:
        yield from torch.randperm(len(data["train_labels"]), generator=random).split(32)


def steps(
    model: nn.Module, data: Data, worker: int, count: int, after: Callable[[int], None] = lambda step: None
) -> None:
    """The loop that a user of PyTorch would write."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images, labels = data["train_images"], data["train_labels"]
    for step, index in zip(range(count), batches(data, worker), strict=False):
        optimizer.zero_grad()
        cross_entropy(model(images[index]), labels[index]).backward()
        optimizer.step()
        after(step)


def hogwild(model: nn.Module, data: Data, worker: int, n_sync: int, count: int) -> None:
    """The pattern of PyTorch's example: parameters in shared memory, an optimizer a process, no lock."""
    steps(model, data, worker, count)


def ddp(model: nn.Module, data: Data, worker: int, n_sync: int, count: int) -> None:
    """Gradients averaged in every step."""
    steps(DistributedDataParallel(model), data, worker, count)


def local_sgd(model: nn.Module, data: Data, worker: int, n_sync: int, count: int) -> None:
    """Parameters averaged every n_sync steps, as one flat vector."""
    world = torch.distributed.get_world_size()

    def average(step: int) -> None:
        if (step + 1) % n_sync == 0:
            with torch.no_grad():
                flat = nn.utils.parameters_to_vector(model.parameters())
                torch.distributed.all_reduce(flat)
                nn.utils.vector_to_parameters(flat.div_(world), model.parameters())

    steps(model, data, worker, count, average)


TRAIN: dict[str, Train] = {"hogwild": hogwild, "ddp": ddp, "local sgd": local_sgd}
NAMES = {
    **{"our hogwild": "the algorithm hogwild here", "hogwild": "PyTorch's Hogwild pattern"},
    **{"ddp": "DistributedDataParallel with gloo", "local sgd": "local SGD over gloo"},
}


def member(
    name: str,
    worker: int,
    workers: int,
    n_sync: int,
    count: int,
    model: nn.Module,
    data: Data,
    store: str,
    barrier: Any,
    line: Line,
) -> None:
    """One process of a rival."""
    torch.set_num_threads(1)
    if name != "hogwild":
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=worker, world_size=workers)
    own = copy.deepcopy(model)
    steps(own, data, worker, 5)  # every kernel once, as ours do before the clock starts
    barrier.wait()
    began = time.monotonic()
    TRAIN[name](model, data, worker, n_sync, count)
    line.put((began, time.monotonic()))
    barrier.wait()
    if name != "hogwild":
        torch.distributed.destroy_process_group()


def theirs(name: str, workers: int, n_sync: int, count: int, data: Data) -> float:
    """Minibatches a second of a rival."""
    model = models.build("lenet", {}, (1, 28, 28), 10)
    if name == "hogwild":
        model.share_memory()
    context: Any = torch.multiprocessing.get_context("forkserver")  # the one that our runs have started
    barrier, line = context.Barrier(workers), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        crew = [
            context.Process(
                target=member,
                args=(name, worker, workers, n_sync, count, model, data, os.path.join(folder, "store"), barrier, line),
            )
            for worker in range(workers)
        ]
        for process in crew:
            process.start()
        times = [line.get(timeout=120) for _ in crew]
        for process in crew:
            process.join()
    return workers * count / (max(end for _, end in times) - min(began for began, _ in times))


def tensors() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fashion-MNIST where it is on this machine, else images of the same shape."""
    task = {**TASK, "train_samples": SAMPLES}
    try:
        return task, load(stated(task, 1, {"name": "sgd"}).task)
    except ScenarioError:
        task = {**task, "dataset": "tests.benchmarks.rivals:synthetic"}
        return task, load(stated(task, 1, {"name": "sgd"}).task)


def synthetic() -> dict[str, Tensor]:
    """Noise of that shape, always the same."""
    random = torch.Generator().manual_seed(0)
    images, labels = torch.randn(SAMPLES, 1, 28, 28, generator=random), torch.arange(SAMPLES) % 10
    return {"train_images": images, "train_labels": labels, "test_images": images[:100], "test_labels": labels[:100]}


def measure(tiny: bool) -> Iterator[Row]:
    """Rates, and ours over each rival's, within one repetition."""
    cases, count, repeats = (((2, 2),), 4, 1) if tiny else (CASES, MINIBATCHES, REPEATS)
    task, data = tensors()
    dataset = "fashion-mnist" if task["dataset"] == "fashion-mnist" else "noise of its shape"
    for workers, n_sync in cases:
        rates: dict[str, list[float]] = {name: [] for name in ("asgd", *NAMES)}
        for _ in range(repeats):
            rates["asgd"].append(ours(task, workers, {"name": "asgd", "n_sync": n_sync}, count))
            for name in TRAIN:
                rates[name].append(theirs(name, workers, n_sync, count, data))
            rates["our hogwild"].append(ours(task, workers, {"name": "hogwild", "n_sync": n_sync}, count))
        case = f"lenet on {dataset}, batch 32, {workers} worker{'s' * (workers > 1)}, n_sync {n_sync}"
        for name, rate in rates.items():
            yield Row(f"{name}: {case}", rate, "minibatches a second", told=False)
            if name != "asgd":
                ratios = [mine / other for mine, other in zip(rates["asgd"], rate, strict=True)]
                yield Row(f"asgd against {NAMES[name]}: {case}", ratios, "times", told=name in TRAIN)
