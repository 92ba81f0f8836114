"""Sync: from the end of one Train to the start of the next on real processes, beside copies and beside round trips.

The model's many parameters take no part in its forward pass, so that Train is short and leaves memory alone; all that
lies between two Trains (measure, push, apply, fetch, adopt) is over the whole vector. Run and baseline alternate.
A large vector's baseline is two copies and one axpy, 7 passes over it, where measuring a delta, applying it to another
version and adopting that one are 8; a small one's is two round trips over pipes to a process that only answers.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.scenario import Scenario
from tests.benchmarks.report import Row

SIZES = {"1 thousand": 1_000, "215 thousand": 215_000, "61 million": 61_000_000}
ROUNDS = {1_000: 2000, 215_000: 1000, 61_000_000: 25}
REPEATS = 5
SMALL = 10_000  # parameters: below, no memory is moved to speak of


class Idle(nn.Module):
    """A linear classifier of digits, beside parameters that it does not use."""

    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
        self.idle = nn.Parameter(torch.zeros(max(1, size - 65 * num_classes)))

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.linear(images.flatten(1))
        return output


def idle(num_classes: int, size: int) -> nn.Module:
    """The factory that the scenario names."""
    return Idle(num_classes, size)


def gaps(workers: int, size: int, rounds: int) -> list[float]:
    """Seconds between one Train and the next, of all workers, without the first tenth."""
    scenario = Scenario.model_validate(
        {
            "name": "sync",
            "task": {
                "name": "classification",
                "dataset": "digits",
                "model": "tests.benchmarks.sync:idle",
                "model_options": {"size": size},
                "batch_size": 2,
                "optimizer": {"name": "SGD", "lr": 0.01},
            },
            "algorithm": {"name": "asgd", "n_sync": 1},
            "workers": workers,
            "budget": {"minibatches": workers * rounds},
            "backend": "process",
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        execute(scenario, Path(folder) / "run")
        effects = tables.read(Path(folder) / "run", "effects")
    found: list[float] = []
    for _, trains in effects[effects["kind"] == "train"].groupby("worker"):
        trains = trains.sort_values("start_s")
        between = trains["start_s"].to_numpy()[1:] - trains["end_s"].to_numpy()[:-1]
        found += between[len(between) // 10 :].tolist()
    return found


def baseline(size: int, rounds: int) -> list[float]:
    """Seconds of two copies and one axpy over vectors of `size`, one thread, in this process."""
    torch.set_num_threads(1)
    a, b, c, d = (torch.full((size,), 0.5) for _ in range(4))
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        a.copy_(b)
        c.copy_(a)
        d.add_(c, alpha=-0.5)
        found.append(time.perf_counter() - began)
    return found[rounds // 10 :]


def baselines(count: int, size: int, rounds: int) -> list[float]:
    """The same in `count` processes at once, which start together when all are ready."""
    code = (
        "import sys; from tests.benchmarks.sync import baseline; baseline(10, 10); "
        "print('ready', flush=True); sys.stdin.readline(); "
        f"print(*baseline({size}, {rounds}))"
    )
    crew = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in crew:
        assert process.stdout is not None
        process.stdout.readline()
    for process in crew:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [float(word) for process in crew for word in process.communicate()[0].split()]


def round_trips(clients: int, rounds: int) -> list[float]:
    """Seconds of two round trips of 64 bytes over pipes, of `clients` processes at once, to one that only answers."""
    context = multiprocessing.get_context("fork")
    there, back = ([os.pipe() for _ in range(clients)] for _ in range(2))
    ours, theirs = context.Pipe()

    def client(number: int) -> None:
        found = []
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(2):
                os.write(there[number][1], bytes(64))
                os.read(back[number][0], 64)
            found.append(time.perf_counter() - began)
        theirs.send(found[rounds // 10 :])
        os.write(there[number][1], b"over")

    crew = [context.Process(target=client, args=(number,)) for number in range(clients)]
    for process in crew:
        process.start()
    open_ends = {read: back[number][1] for number, (read, _) in enumerate(there)}
    while open_ends:
        for read in select.select(list(open_ends), [], [])[0]:
            message = os.read(read, 64)
            if message == b"over":
                del open_ends[read]
            else:
                os.write(open_ends[read], message)
    found = [second for _ in crew for second in ours.recv()]
    for process in crew:
        process.join()
    for end in (end for pipe in there + back for end in pipe):
        os.close(end)
    return found


def measure(tiny: bool) -> Iterator[Row]:
    """Microseconds of ours, and over those of the baseline."""
    for name, size in list(SIZES.items())[: 2 if tiny else None]:
        size, rounds = (min(size, 20_000), 10) if tiny else (size, ROUNDS[size])
        small = size < SMALL
        against = "two round trips over pipes" if small else "two copies and one axpy"
        for workers in (2,) if tiny else (1, 2):
            ours, theirs = [], []
            for _ in range(1 if tiny else REPEATS):
                other = round_trips(workers, rounds) if small else baselines(workers, size, rounds)
                theirs.append(1e6 * statistics.median(other))
                ours.append(1e6 * statistics.median(gaps(workers, size, rounds)))
            what = (
                f"end of one Train to the start of the next, {name} parameters, {workers} worker{'s' * (workers > 1)}"
            )
            yield Row(what, ours, "µs")
            yield Row(f"{against}, {name} parameters, {workers} at once", theirs, "µs", told=False)
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            yield Row(f"{what}, against {against}", ratios, "times")
