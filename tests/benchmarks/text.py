"""Text: replicas of transformers in one call against one after another, and virtual time against a bare loop.

One thread; seconds are CPU time. Each run stands between two bare loops, since the machine's speed drifts. Building,
checks, final evaluation, and for `auto` its probe, are measured by a run of a minibatch a worker, and are told apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from asgd_lab import tasks
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import Learner
from asgd_lab.tasks.text.next_tokens import NextTokens
from tests.benchmarks.gradients import simulated
from tests.benchmarks.report import Row

SIZES: dict[str, dict[str, Any]] = {
    "70 thousand parameters": {"width": 48, "layers": 2, "heads": 4},
    "1 million parameters": {"width": 128, "layers": 5, "heads": 4},
}
TINY = {"width": 16, "layers": 1, "heads": 2, "context": 16, "batch_size": 2}
BATCHES = (4, 16)  # sequences of 64 tokens
STEPS = {"70 thousand parameters": 5, "1 million parameters": 2}  # of a round
ALONE = 8  # replicas that stand for all where they are taken one after another
REPEATS, WHOLE_REPEATS, WHOLE_STEPS = 7, 3, 800


def scenario(size: dict[str, Any], workers: int, steps: int, numerics: str) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "text",
            "task": {"name": "text", "corpus_bytes": 1_000_000, **size},
            "algorithm": {"name": "asgd", "n_sync": 5},
            "workers": workers,
            "budget": {"minibatches": steps},
            "backend": {"name": "sim", "numerics": numerics},
            "hardware": {"compute": {"distribution": "lognormal", "step_s": 0.02}},
        }
    )


def rounds(task: tasks.Task, replicas: int, steps: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Seconds a replica of a round: one after another, and in one call."""
    alone, together = ([task.learner(worker, task.initial()) for worker in range(count)]
                       for count in (min(ALONE, replicas), replicas))  # fmt: skip
    batch = task.batch()
    taken = [0, 0]

    def one_by_one() -> float:
        began = time.process_time()
        for learner in alone:
            for step in range(taken[0], taken[0] + steps):
                learner.minibatch(step)
        taken[0] += steps
        return (time.process_time() - began) / len(alone)

    def in_one_call() -> float:
        wanted: list[tuple[Learner, int, int]] = [(learner, taken[1], steps) for learner in together]
        began = time.process_time()
        batch.advance(wanted)
        taken[1] += steps
        return (time.process_time() - began) / len(together)

    return one_by_one, in_one_call


def bare(size: dict[str, Any], data: dict[str, torch.Tensor], steps: int) -> float:
    """Seconds of the loop that everybody writes: random windows, loss, backward, AdamW."""
    configured: Any = scenario(size, 1, 1, "sequential").task
    own = NextTokens(configured, data, 0, 1)
    model, text = own.model(0), data["train_text"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.1)
    context, batch = configured.context, configured.batch_size
    began = time.process_time()
    for _ in range(steps):
        starts = torch.randint(len(text) - context, (batch,)).tolist()
        inputs = torch.stack([text[start : start + context] for start in starts]).long()
        labels = torch.stack([text[start + 1 : start + 1 + context] for start in starts]).long()
        loss = cross_entropy(model(inputs).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return time.process_time() - began


def measure(tiny: bool) -> Iterator[Row]:
    """Batched against sequential, then whole runs of 8 workers."""
    sizes = {"tiny": TINY} if tiny else SIZES
    for name, size in sizes.items():
        for batch in (2,) if tiny else BATCHES:
            for replicas in (2,) if tiny else (8, 32):
                stated = {**size, "batch_size": batch}
                configured = scenario(stated, 1, 1, "sequential").task
                task = tasks.build(configured, 0, tasks.load(configured))
                one_by_one, in_one_call = rounds(task, replicas, STEPS.get(name, 1))
                one_by_one(), in_one_call()  # kernels, and the record of the stack
                pairs = [(one_by_one(), in_one_call()) for _ in range(1 if tiny else REPEATS)]
                what = f"{name}, {batch} sequences a minibatch, {replicas} replicas"
                steps = STEPS.get(name, 1)
                yield Row(f"a minibatch of text, {what}", [1e3 * one / steps for one, _ in pairs], "ms", told=False)
                yield Row(f"text in one call, {what}", [one / many for one, many in pairs],
                          "times as fast as one after another")  # fmt: skip
    for name, size in sizes.items():
        steps = 4 if tiny else WHOLE_STEPS // (5 if name.startswith("1 million") else 1)
        data, workers = tasks.load(scenario(size, 1, 1, "sequential").task), 2 if tiny else 8
        loops, ratios = [bare(size, data, steps)], dict[str, list[float]](sequential=[], auto=[])
        before: dict[str, list[float]] = {mode: [] for mode in ratios}
        for mode in tuple(ratios) * (1 if tiny else WHOLE_REPEATS):
            before[mode].append(simulated(scenario(size, workers, workers, mode)))
            took = simulated(scenario(size, workers, steps + workers, mode)) - before[mode][-1]
            loops.append(bare(size, data, steps))
            ratios[mode].append(2 * took / (loops[-1] + loops[-2]))
        for mode, values in ratios.items():
            what = f"simulated run of text, {name}, {workers} workers, {mode}"
            yield Row(f"{steps:,} minibatches more of a {what}", values, "times the bare loop")
            yield Row(f"all but the minibatches of a {what}", before[mode], "s", told=False)
