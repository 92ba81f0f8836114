"""Cells of a notebook for the tests of live objects: sources that are executed as its `__main__`."""

from __future__ import annotations

import linecache
from typing import Any

CELL = '''
import functools

import torch
from torch import nn

from asgd_lab import extending as lab
from asgd_lab.algorithms import Link, Together
from asgd_lab.algorithms.base import Encoding, Links, Push
from asgd_lab.algorithms.codecs import Cast, Compression
from asgd_lab.algorithms.rules import Scale
from asgd_lab.backends import inline
from asgd_lab.configuration import Count, Positive
from asgd_lab.scenario.executions import InlineExecution
from asgd_lab.task_keys.optimizers import SGD, Optimizer
from asgd_lab.scenario.tasks import Learned, Quadratic

HIDDEN = 12


def width():
    """A function that another one uses, and a global variable."""
    return HIDDEN


@functools.cache
def weights():
    return torch.full((4,), 0.5)


class Net(nn.Module):
    def __init__(self, num_classes, hidden=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def forward(self, images):
        return self.layers(images)


def make(num_classes):
    return Net(num_classes, hidden=width())


def loss(outputs, labels):
    return nn.functional.cross_entropy(outputs, labels) + 0.0 * weights().sum()


def images(samples=64):
    drawn = torch.Generator().manual_seed(3)
    labels = torch.arange(samples) % 3
    inputs = torch.randn(samples, 1, 8, 8, generator=drawn) + labels.view(-1, 1, 1, 1)
    return dict(train_images=inputs, train_labels=labels, test_images=inputs[:16], test_labels=labels[:16])


class Slower(torch.optim.SGD):
    """Half the step."""

    def step(self, closure=None):
        for group in self.param_groups:
            for each in group["params"]:
                each.grad.mul_(0.5)
        return super().step(closure)


def falling(time):
    return 1.0 / (1 + time)


class Task:
    """A task of one's own."""

    def __init__(self, hidden=6):
        self.hidden = hidden

    def model(self, seed):
        return nn.Sequential(nn.Linear(4, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 3))

    def batch(self, worker, workers, seed, step):
        drawn = torch.Generator().manual_seed(1_000_003 * seed + 1009 * worker + step)
        inputs = torch.randn(8, 4, generator=drawn) * weights()
        return inputs, inputs[:, :3].argmax(1)

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def evaluations(self):
        yield "test", [self.batch(99, 1, 0, step) for step in range(2)]


class Growing(Together):
    """Pushes after 1, 2, 4, ... minibatches."""

    first: Count = 1
    rule: Links = [Scale(name="scale")]
    push: Push = "delta"
    codec: Encoding = None

    def sentence(self, rule):
        def program(replica):
            fetch, train, push = lab.Fetch(replica), lab.Train(replica), lab.PushEffect(replica)
            stretch = self.first
            while True:
                yield fetch
                if not replica.granted:
                    return
                replica.adopt()
                while replica.granted:
                    replica.steps = min(stretch, replica.granted)
                    yield train
                    replica.measure()
                    yield push
                stretch = min(2 * stretch, self.n_sync)

        return lab.Algorithm(
            self.name, program, OneByOne(), rule, self.n_sync, self.push, lab.AnchoredDelta
        )


class OneByOne(lab.Asynchronous):
    """A gate of one's own."""


class Sign(Link):
    """Lr times the sign of each element."""

    lr: Positive

    def build(self, workers):
        def step(update, count, state, fresh, workspace):
            vector, alpha = update
            out = torch.sign(vector, out=workspace.other_than(vector))
            return out, self.lr if alpha > 0 else -self.lr

        return lab.Rule(self.name, "any", "any", 0, step)


class Rounded(Compression):
    """Sends updates in fewer bytes."""

    def build(self):
        return Cast(name="cast", dtype="float16").build()


def aside(scenario, record, watch=None):
    return inline.run(scenario, record, watch)


class Aside(InlineExecution):
    """A backend of one's own."""

    runs = staticmethod(aside)


class Slope(Learned):
    """A bowl of one dimension."""

    slope: Positive
    optimizer: Optimizer = SGD

    def make(self, seed, data, workers):
        keys = {"name": "quadratic", "curvature": [self.slope], "optimizer": self.optimizer}
        return Quadratic.model_validate(keys).make(seed, data, workers)
'''


def executed(source: str = CELL, number: int = 1) -> dict[str, Any]:
    """The names that a cell defines; its text is known to `inspect`, as IPython's cells are."""
    file = f"<cell {number}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, file, "exec", dont_inherit=True), names)
    return names
