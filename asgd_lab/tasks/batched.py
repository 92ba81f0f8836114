"""Minibatches of many learners in one pass; between two calls all state is in the learners.

A call gathers the learners' parameters, gradient sums and optimizer states into matrices, a replica a row, and scatters
them back at its end. The optimizer of a call is the scenario's own class of torch.optim over the rows, so its
arithmetic is torch's, and each row has its own count of steps. The class must step element by element, whatever the
shapes of the weights. `batching_checks` refuses all others at construction.

Shape letters are those of `replica_stack`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor

from asgd_lab.errors import ProtocolError
from asgd_lab.tasks.base import Data, Learner, Taken
from asgd_lab.tasks.batching_checks import check_labels, examine, memories
from asgd_lab.tasks.clipping_and_schedules import AdjustRows
from asgd_lab.tasks.feeds import Indexed, Order
from asgd_lab.tasks.network import Network, NetworkLearner
from asgd_lab.tasks.optimizers import MakeOptimizer
from asgd_lab.tasks.replica_stack import Stack
from asgd_lab.tasks.samples import labels_of, pick

_HIGHEST = 32  # replicas in a stack: more gain nothing
_KEPT_BYTES = 2**25  # saved by a stack between the passes: two stacks are faster than one that exceeds the caches
_KEPT_ON_GPU_BYTES = 2**33  # on a GPU, where memory alone is the limit


Minibatches = Callable[[Sequence[tuple[NetworkLearner, int]]], tuple[Tensor, Tensor]]
"""Maps learners and their steps to the inputs (B, R, ...) and labels (B, R, ...) of these minibatches."""


class _Round(NamedTuple):
    learner: NetworkLearner
    first: int
    steps: int
    place: int  # the index in the caller's list


class _Rows:
    """A matrix (R, P), and each row's pieces in the shapes of the weights."""

    def __init__(self, height: int, stack: Stack, device: torch.device) -> None:
        self.matrix = torch.zeros(height, sum(stack.sizes), device=device)
        self.rows = self.matrix.unbind(0)
        self.pieces = [_pieces(row, stack) for row in self.rows]


@final
class StackedBatch:
    """Stacks of replicas of one network.

    The same calls give the same bytes, and a call's result does not depend on the order of its rounds. The number of
    learners in a stack may change their last bits, since kernels differ with the height of the stack.
    """

    def __init__(
        self, stack: Stack, kept_bytes: int, minibatches: Minibatches, make: MakeOptimizer, device: torch.device,
        adjust: AdjustRows | None = None,
    ) -> None:  # fmt: skip
        """`stack` and `kept_bytes` are those of `batching_checks.examine`."""
        self._stack, self._minibatches, self._make, self._adjust = stack, minibatches, make, adjust
        self._memories, self._device = memories(make), device
        most_bytes = _KEPT_BYTES if device.type == "cpu" else _KEPT_ON_GPU_BYTES
        self.height = max(1, min(_HIGHEST, most_bytes // kept_bytes))
        self._params, self._sums = (_Rows(self.height, self._stack, self._device) for _ in range(2))
        self._memory: dict[str, _Rows] = {}
        self._others = [torch.zeros(self.height, *shape, device=self._device) for shape in self._stack.other_shapes]

    def advance(self, rounds: Sequence[tuple[Learner, int, int]]) -> list[Taken]:
        """Take all the minibatches; return the mean cross-entropy and the share of wrong answers before each."""
        entries = [
            _Round(cast("NetworkLearner", learner), first, steps, place)
            for place, (learner, first, steps) in enumerate(rounds)
        ]
        if len({id(each.learner) for each in entries}) < len(entries):
            raise ProtocolError("a learner stands in two rounds of one call")
        # The longest first, so that the unfinished ones are always a prefix.
        entries.sort(key=lambda each: (-each.steps, each.learner.worker))
        answers: list[Taken] = [([], []) for _ in rounds]
        with torch.no_grad():
            for start in range(0, len(entries), self.height):
                self._advance(entries[start : start + self.height], answers)
        return answers

    def _advance(self, rounds: Sequence[_Round], answers: list[Taken]) -> None:
        learners = [each.learner for each in rounds]
        self._gather(learners)
        rows = self._params.rows[: len(rounds)]
        optimizer = self._make(rows)
        self._recall(optimizer, learners)
        for step in range(rounds[0].steps):
            active = [each for each in rounds if each.steps > step]
            inputs, labels = self._minibatches([(each.learner, each.first + step) for each in active])
            others = [other[: len(active)] for other in self._others]
            gradients, losses, wrong = self._stack.step(self._params.matrix[: len(active)], others, inputs, labels)
            if self._adjust is not None:
                clocks = [(each.first + step, each.learner.version) for each in active]
                self._adjust(optimizer, rows[: len(active)], gradients, clocks)
            if any(learner.sums for learner in learners):
                self._sums.matrix[: len(active)] += gradients
            for row in rows[len(active) :]:
                row.grad = None
            for row, gradient in zip(rows, gradients.unbind(0), strict=False):
                row.grad = gradient
            _hasten(optimizer, rows[: len(active)])
            optimizer.step()
            for each, loss, count in zip(active, losses.tolist(), wrong.tolist(), strict=True):
                answers[each.place][0].append(loss)
                answers[each.place][1].append(count * len(active) / labels.numel())
        self._remember(optimizer, learners)
        self._scatter(learners)

    # ------------------------------------------------------------------ between learners and rows

    def _weights(self, learner: NetworkLearner) -> Iterator[Tensor]:
        return (learner.parameters[name] for name in self._stack.weights)

    def _handles(self, learner: NetworkLearner) -> Iterator[Tensor]:
        return (learner.handles[name] for name in self._stack.weights)

    def _vectors(self, learners: Sequence[NetworkLearner]) -> tuple[list[Tensor], list[Tensor]]:
        """The learners' tensors, and the pieces of rows that mirror them here."""
        theirs: list[Tensor] = []
        ours: list[Tensor] = []
        for learner, params, sums in zip(learners, self._params.pieces, self._sums.pieces, strict=False):
            theirs += self._weights(learner)
            ours += params
            if learner.sums:
                theirs += [learner.sums[name] for name in self._stack.weights]
                ours += sums
        return theirs, ours

    def _gather(self, learners: Sequence[NetworkLearner]) -> None:
        theirs, ours = self._vectors(learners)
        torch._foreach_copy_(ours, theirs)
        for name, other in zip(self._stack.others, self._others, strict=True):
            for row, learner in zip(other, learners, strict=False):
                row.copy_(learner.parameters[name])

    def _scatter(self, learners: Sequence[NetworkLearner]) -> None:
        theirs, ours = self._vectors(learners)
        torch._foreach_copy_(theirs, ours)

    def _recall(self, optimizer: torch.optim.Optimizer, learners: Sequence[NetworkLearner]) -> None:
        """Copy the state of the learners' optimizers into the rows' optimizer."""
        theirs: list[Tensor] = []
        ours: list[Tensor] = []
        for place, learner in enumerate(learners):
            states = [learner.optimizer.state.get(weight) or {} for weight in self._handles(learner)]
            row = self._params.rows[place]
            for name, value in states[0].items():
                if name in self._memories:
                    if name not in self._memory:
                        self._memory[name] = _Rows(self.height, self._stack, self._device)
                    memory = self._memory[name]
                    optimizer.state[row][name] = memory.rows[place]
                    theirs += [state[name] for state in states]
                    ours += memory.pieces[place]
                else:
                    optimizer.state[row][name] = _copied(value)
        if theirs:
            torch._foreach_copy_(ours, theirs)

    def _remember(self, optimizer: torch.optim.Optimizer, learners: Sequence[NetworkLearner]) -> None:
        """Copy the state of the rows' optimizer back into the learners' optimizers."""
        theirs: list[Tensor] = []
        ours: list[Tensor] = []
        for place, learner in enumerate(learners):
            for name, value in optimizer.state[self._params.rows[place]].items():
                memory = self._memory.get(name)
                if memory is not None and value is memory.rows[place]:
                    pieces = memory.pieces[place]
                elif name in self._memories:  # new in this call
                    pieces = _pieces(value, self._stack)
                else:
                    pieces = [value] * len(self._stack.weights)
                for weight, piece in zip(self._handles(learner), pieces, strict=True):
                    state = learner.optimizer.state[weight]
                    if isinstance(state.get(name), Tensor):
                        theirs.append(state[name])
                        ours.append(piece)
                    else:
                        state[name] = _copied(piece)
        if theirs:
            torch._foreach_copy_(theirs, ours)


def classification_batch(
    network: Network, make: MakeOptimizer, data: Data, batch_size: int, adjust: AdjustRows | None = None
) -> StackedBatch:
    """The batch of a network that classifies samples; `data` must be on the device of the replicas."""
    stored = data["train_labels"]

    def minibatch(index: Tensor) -> tuple[Tensor, Tensor]:
        return _inputs(data, index), _classes(stored, index)

    def minibatches(wanted: Sequence[tuple[NetworkLearner, int]]) -> tuple[Tensor, Tensor]:
        return minibatch(torch.stack([_order(learner)(step) for learner, step in wanted], 1))

    index = torch.arange(2 * batch_size, device=stored.device).remainder(len(stored)).view(batch_size, 2)
    inputs, labels = minibatch(index)
    check_labels(labels)
    return StackedBatch(*examine(network, inputs, labels), minibatches, make, stored.device, adjust)


def _order(learner: NetworkLearner) -> Order:
    return cast("Indexed", learner.batches).order


def _inputs(data: Data, index: Tensor) -> Tensor:
    """The inputs (B, R, ...) of the samples (B, R)."""
    found = pick(data, "train", index.flatten())
    return found.view(*index.shape, *found.shape[1:])


def _classes(labels: Tensor, index: Tensor) -> Tensor:
    """The labels (B, R, ...) of the samples (B, R)."""
    found = labels_of(labels, index.flatten())
    return found.view(*index.shape, *found.shape[1:])


def _pieces(row: Tensor, stack: Stack) -> list[Tensor]:
    return [piece.view(shape) for piece, shape in zip(torch.split(row, stack.sizes), stack.shapes, strict=True)]


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _hasten(optimizer: torch.optim.Optimizer, rows: Sequence[Tensor]) -> None:
    """Choose torch's fused or foreach kernel over all rows, if the class has one; on a GPU torch chooses by default."""
    if rows[0].is_cuda:
        return
    # torch's fused SGD looks at the first row alone: either every row has a momentum buffer by now or none has.
    alike = len({bool(optimizer.state.get(row)) for row in rows}) == 1
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = alike
        if "foreach" in group:
            group["foreach"] = not group.get("fused")
