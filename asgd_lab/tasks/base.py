"""The interface of tasks: a task makes learners, which take local steps in place on a flat vector.

No clock, no server and no worker process in this folder: a task knows neither its caller nor the time. Shape letters,
here and in the other files of the folder: P elements of the flat vector, N samples, B of them in a minibatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, final

import torch
from torch import OutOfMemoryError, Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.free_memory import free_memory_bytes
from asgd_lab.users_code import place

CPU = torch.device("cpu")
Data = dict[str, Tensor]
START = "start."  # prefix, in the data, of the names of buffers that a warm start has changed


class Learner(Protocol):
    """One replica's model, data order and local optimizer, bound to a vector that its caller owns."""

    version: int
    """The version of the parameters, which the caller sets at each fetch; a schedule may follow it."""

    def minibatch(self, step: int) -> tuple[float, float]:
        """Take one local step in place; return (loss, error) of the minibatch before it, nan where undefined.

        The step is a pure function of (parameters, optimizer state, seed, worker, step).
        """
        ...

    def reset_momentum(self) -> None:
        """Forget the local optimizer's state."""
        ...

    def buffers(self) -> Mapping[str, Tensor]:
        """The model's buffers that training has changed, by name, such as BatchNorm's statistics, for evaluations."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All state that outlives a minibatch, beside the parameters: the local optimizer's, and buffers, by name."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the `state` of another learner of the same worker."""
        ...

    def warm_up(self) -> None:
        """Run every kernel once; parameters, gradients, optimizer state, buffers and random streams stay as before."""
        ...


Taken = tuple[list[float], list[float]]
"""The losses and the errors of some minibatches, in their order."""


class Batch(Protocol):
    """Advances many replicas of one task together: the same arithmetic in another order, so the results differ from
    those of `Learner.minibatch` by rounding.
    """

    @property
    def height(self) -> int:
        """The largest number of replicas in one pass; with 1, nothing is gained."""
        ...

    def advance(self, rounds: Sequence[tuple[Learner, int, int]]) -> list[Taken]:
        """For each (learner, first step, steps): take these minibatches in place on the learner's vectors.

        A learner is in at most one of the rounds. Calls of `advance` and of `Learner.minibatch` may alternate freely:
        both work on the learner's own parameters, gradient sums and optimizer state.
        """
        ...


@final
class OneByOne:
    """The batch of a task that gains nothing from batching: exactly the bits of `Learner.minibatch`."""

    height = 1

    def advance(self, rounds: Sequence[tuple[Learner, int, int]]) -> list[Taken]:
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
        """Bytes that one push or one fetch moves."""
        ...

    def initial(self) -> Tensor:
        """A new vector (P,) to start training from, a function of the seed alone."""
        ...

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> Learner:
        """Bind a replica to `params` (P,); each minibatch's gradient is added to `gradients` (P,) if given.

        Both must start at a 64-byte boundary, else a `ProtocolError` is raised.
        """
        ...

    def batch(self, device: torch.device = CPU) -> Batch:
        """A `Batch` for this task's learners on that device; a `ScenarioError` if the task cannot be batched."""
        ...

    @property
    def device_bytes(self) -> int:
        """Bytes of its data on a GPU, beside all vectors, in each process that computes on one."""
        ...

    @property
    def has_error(self) -> bool:
        """Whether minibatches have an error; valid after `check`."""
        ...

    @property
    def evaluated(self) -> Sequence[tuple[str, str]] | None:
        """Split and metric of each row of `evaluate`, valid after `check`; None if only an evaluation tells them."""
        ...

    @property
    def doubts(self) -> Sequence[str]:
        """Warnings on allowed but doubtful choices, lines `key: sentence`; valid after `check`."""
        ...

    @property
    def most_steps(self) -> int | None:
        """The minibatches after which a learner's schedule ends and its next one fails; None: none says that it ends.
        Valid after `check`.
        """
        ...

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """Try the task on that device before a run starts; a `ScenarioError` says why it cannot be trained.

        With `gradients`, learners will be given a vector for the sum of their gradients.
        """
        ...

    def check_workers(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` if these workers cannot be trained with this seed; with others `check` has accepted it."""
        ...

    def check_resume(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` if a learner restored from a checkpoint would take other steps than the original."""
        ...

    def start_with(self, buffers: Mapping[str, Tensor]) -> None:
        """Let new learners start with these buffers, from a warm start."""
        ...

    def start(self) -> Data:
        """The buffers of `start_with` as data entries, for the tasks of other processes."""
        ...

    def evaluate(
        self, params: Tensor, buffers: Mapping[str, Tensor] | None = None, *, of_replica: bool = False
    ) -> list[tuple[str, str, float]]:
        """Rows of (split, metric, value), such as ("test", "error", 0.12); the training state does not change.

        `buffers` are a learner's; None means those of the start. With `of_replica`, parameters and buffers are those of
        one replica and are used as they are; with the server's parameters, BatchNorm's statistics are estimated again.
        """
        ...


class Bufferless:
    """Base of tasks whose learners have parameters and an optimizer, but no buffers and no error."""

    has_error = False
    evaluated: Sequence[tuple[str, str]] | None = None
    doubts: Sequence[str] = ()
    most_steps: int | None = None
    device_bytes = 0

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """Accept."""

    def check_workers(self, *, device: torch.device = CPU) -> None:
        """Accept."""

    def check_resume(self, *, device: torch.device = CPU) -> None:
        """Accept."""

    def start_with(self, buffers: Mapping[str, Tensor]) -> None:
        """Ignore the buffers: learners have none."""

    def start(self) -> Data:
        return {}


def one_line(error: BaseException) -> str:
    """An exception of foreign code, on one line, as part of a message of ours; with its place in a user's file."""
    try:
        said = str(error)
    except Exception:  # of a class of the user's
        said = ""
    text = " ".join(said.partition("\n\nSet TORCHDYNAMO_VERBOSE")[0].split())  # advice to a developer of torch
    if "No working C++ compiler found" in text:
        text = "torch.compile finds no C++ compiler; install g++ or set CXX, or compile with backend='aot_eager'"
    if isinstance(error, OutOfMemoryError):  # the later sentences are advice to a programmer
        text = ". ".join(text.split(". ")[:3])
    return (f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__) + place(error)


def check_free_memory(key: str, what: str, size_bytes: int) -> None:
    """A `ScenarioError` at `key` if `size_bytes` exceeds the free memory; `what` begins its sentence."""
    free_bytes = free_memory_bytes()
    if size_bytes > free_bytes:
        sizes = f"{size_bytes / 1e9:,.1f} GB, and {free_bytes / 1e9:,.1f} GB of memory are free"
        raise ScenarioError.at(key, f"{what} {sizes}")
