"""What is learned, as everybody else sees it: a task makes learners, which take local steps in place on a flat vector.

A task knows neither who calls it nor when: no clock, no server and no worker process in this folder. Shape letters,
here and in the files beside this one: P elements of the flat vector, N samples, B of them in a minibatch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, final

import torch
from torch import OutOfMemoryError, Tensor

CPU = torch.device("cpu")
Data = dict[str, Tensor]
START = "start."  # in data, before the names of buffers that a warm start has changed


class Learner(Protocol):
    """One replica's model, data order and local optimizer, bound to a vector that somebody else owns."""

    version: int
    """Of the parameters that it works on, set at each fetch: a schedule may follow it."""

    def minibatch(self, step: int) -> tuple[float, float]:
        """Take one local step in place; (loss, error) of the minibatch before it, nan where there is none.

        The effect is a pure function of (parameters, optimizer state, seed, worker, step).
        """
        ...

    def reset_momentum(self) -> None:
        """Forget the local optimizer's state."""
        ...

    def buffers(self) -> Mapping[str, Tensor]:
        """What training wrote beside the parameters, by name, such as BatchNorm's statistics: for an evaluation."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What outlives a minibatch beside the parameters and the seed, by names of its own: the local optimizer's."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what another learner of the same worker gave."""
        ...

    def warm_up(self) -> None:
        """Run every kernel once; parameters, gradients, optimizer state, buffers and random streams stay as before."""
        ...


Taken = tuple[list[float], list[float]]
"""The losses and the errors of some minibatches, in their order."""


class Batch(Protocol):
    """Advances the replicas of one task together: another order of the same arithmetic, so nearly but not exactly the
    bits of `Learner.minibatch`.
    """

    def advance(self, rounds: Sequence[tuple[Learner, int, int]]) -> list[Taken]:
        """For each (learner, first step, steps): take these minibatches in place on the learner's vectors.

        A learner stands in at most one round. It may be advanced and take minibatches by itself in any alternation:
        its parameters, gradient sums and optimizer state are the same.
        """
        ...


@final
class OneByOne:
    """The batch of a task which gains nothing by another order: exactly the bits of `Learner.minibatch`."""

    def advance(self, rounds: Sequence[tuple[Learner, int, int]]) -> list[Taken]:
        """One learner after another."""
        answers: list[Taken] = []
        for learner, first, steps in rounds:
            taken = [learner.minibatch(step) for step in range(first, first + steps)]
            answers.append(([loss for loss, _ in taken], [error for _, error in taken]))
        return answers


class Task(Protocol):
    """A model, its data and its local optimizer; the same configuration, seed and data build the same task."""

    @property
    def size(self) -> int:
        """P: the float32 elements of the flat vector, its gaps included; 0 where only time is modelled."""
        ...

    @property
    def size_bytes(self) -> int:
        """What one push or one fetch moves."""
        ...

    def initial(self) -> Tensor:
        """The vector (P,) that training starts from: a fresh one, and a function of the seed alone."""
        ...

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> Learner:
        """Bind a replica to `params` (P,); where `gradients` (P,) is given, each minibatch's gradient is added to it.

        Both must start at a 64-byte boundary; a `ProtocolError` says so where they do not.
        """
        ...

    def batch(self, device: torch.device = CPU) -> Batch:
        """What advances many of its learners on that device together; a `ScenarioError` where the task allows no such
        thing.
        """
        ...

    @property
    def device_bytes(self) -> int:
        """What its data take on a GPU, beside all vectors: as much in each process that computes on one."""
        ...

    @property
    def has_error(self) -> bool:
        """Whether minibatches have an error: known once it has been checked."""
        ...

    @property
    def doubts(self) -> Sequence[str]:
        """What is allowed but hardly meant, lines `key: sentence`: known once it has been checked."""
        ...

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """Try it out on that device before anything is started; a `ScenarioError` says what cannot be trained.

        `gradients` says that learners will be given a vector for the sum of their gradients.
        """
        ...

    def check_resume(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` where a learner that goes on from a checkpoint would take other steps than before."""
        ...

    def start_with(self, buffers: Mapping[str, Tensor]) -> None:
        """From now on learners start with these buffers, as a warm start left them."""
        ...

    def start(self) -> Data:
        """These buffers, as what a task of another process takes beside its data."""
        ...

    def evaluate(
        self, params: Tensor, buffers: Mapping[str, Tensor] | None = None, *, of_replica: bool = False
    ) -> list[tuple[str, str, float]]:
        """Rows of (split, metric, value), such as ("test", "error", 0.12); nothing that training uses is changed.

        `buffers` are a learner's, None those of the start. Where parameters and buffers are both `of_replica`, these
        buffers are all it needs; beside the server's parameters BatchNorm's are estimated anew.
        """
        ...


class Bufferless:
    """What a task answers whose learners keep nothing beside parameters and optimizer, and have no error."""

    has_error = False
    doubts: Sequence[str] = ()
    device_bytes = 0

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """Nothing can be wrong with it."""

    def check_resume(self, *, device: torch.device = CPU) -> None:
        """Nothing is kept beside parameters and optimizer."""

    def start_with(self, buffers: Mapping[str, Tensor]) -> None:
        """There are none."""

    def start(self) -> Data:
        """None."""
        return {}


class OptimizerConfig(Protocol):
    """The part of a scenario that names a class of torch.optim and its keywords."""

    @property
    def name(self) -> str:
        """Such as "SGD"."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Such as {"lr": 0.1}."""
        ...


def near(word: str, allowed: Iterable[str]) -> str:
    """Of the allowed words the nearest, as "; did you mean 'word'?"; nothing where none is near."""
    folded = {name.casefold(): name for name in allowed}
    found = difflib.get_close_matches(word.casefold(), folded, n=1) if len(word) <= 100 else []
    return f"; did you mean '{folded[found[0]]}'?" if found else ""


def one_line(error: BaseException) -> str:
    """An exception of somebody else's code, as part of a message of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError):  # advice for whoever holds the program follows
        text = ". ".join(text.split(". ")[:3])
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
