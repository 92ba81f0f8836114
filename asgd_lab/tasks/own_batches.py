"""Minibatches of a user's class: from its `batch`, a function, or from its `stream`, an iterator with a state.

A learner asks for the minibatch of a step. A stream that has passed that step starts again and skips minibatches, so
that a restarted worker sees the same ones as the first; a checkpoint has the stream's state instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.optimizer_state import packed, unpacked
from asgd_lab.tasks.recipe import Batches
from asgd_lab.tasks.trees import cloned, difference, leaves, on

_STREAM, _NEXT = "stream.", "stream.next"
_NEED = "a stream needs state_dict() and load_state_dict(): else a resumed run would start it over without a word"
_SAVED_AFTER = 1, 10  # minibatches of the trial
_MOVED = "ToCopyBackward0"  # a leaf of the host, on its device


@final
class Called:
    """One worker's minibatches from a function of the step."""

    def __init__(self, batch: Callable[[int], Any], device: torch.device) -> None:
        self._batch, self._device = batch, device

    def __call__(self, step: int) -> Any:
        return on(self._device, self._batch(step))

    def state(self) -> dict[str, Tensor]:
        """Nothing: any step can be read at once."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""

    def again(self) -> Called:
        """Itself: it is a function of the step."""
        return self


@final
class Stream:
    """One worker's minibatches from an iterator."""

    def __init__(self, begin: Callable[[], Any], device: torch.device) -> None:
        """`begin` makes the iterator, or an iterable that has a state, at its first minibatch."""
        self._begin, self._device = begin, device
        self._source: Any = None
        self._iterator: Iterator[Any] | None = None
        self._next = 0  # the step of the iterator's next minibatch

    def __call__(self, step: int) -> Any:
        if self._source is None or step < self._next:
            self._source, self._iterator, self._next = self._begin(), None, 0
        if self._iterator is None:
            self._iterator = iter(self._source)
        found = None
        while self._next <= step:
            try:
                found = next(self._iterator)
            except StopIteration:
                raise RunFailed(f"the stream ends after {self._next} minibatches; it must go on for ever") from None
            self._next += 1
        return on(self._device, found)

    def state(self) -> dict[str, Tensor]:
        """The iterator's state, and the step of its next minibatch."""
        found = {_NEXT: torch.tensor(self._next)}
        if self._next:
            found |= {_STREAM + name: value for name, value in packed(self._source.state_dict()).items()}
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the `state` of another stream of the same worker."""
        self._source, self._iterator, self._next = self._begin(), None, int(state[_NEXT])
        if self._next:
            inside = {name.removeprefix(_STREAM): value for name, value in state.items() if name.startswith(_STREAM)}
            self._source.load_state_dict(unpacked(inside, torch.device("cpu")))

    def again(self) -> Stream:
        """The stream from its beginning."""
        return Stream(self._begin, self._device)


def minibatch(method: str, batches: Batches, step: int) -> Any:
    """A copy of a minibatch; a `ScenarioError` if it cannot be made, copied or trained on again."""
    try:
        found = batches(step)
    except RunFailed as error:
        raise ScenarioError.at("task.task", f"{method}: {error}") from error
    except Exception as error:
        raise ScenarioError.at("task.task", f"{method} raised {one_line(error)}") from error
    try:
        copied = cloned(found)
        graphs = [place for place, leaf in leaves(found) if isinstance(leaf, Tensor) and _has_graph(leaf)]
    except Exception as error:
        raise ScenarioError.at("task.task", f"{method} returns what cannot be copied: {one_line(error)}") from error
    if graphs:
        what = f"a tensor{graphs[0] and ' '}{graphs[0]} with the graph of its computation; detach() it"
        raise ScenarioError.at("task.task", f"{method} returns {what}")
    return copied


def _has_graph(leaf: Tensor) -> bool:
    return leaf.grad_fn is not None and leaf.grad_fn.name() != _MOVED


def check_batches(method: str, batches: Callable[[int], Batches], workers: int = 1) -> None:
    """A `ScenarioError` if a worker's minibatches are no function of its number and the step.

    `batches` makes a worker's minibatches. The first three are read in two orders, after different random numbers; of
    the last of the `workers` only the first is.
    """
    with preserving_generators():
        seed_all(0)
        first, second = _begun(method, batches), _begun(method, batches)
        there = [minibatch(method, first, step) for step in range(3)]
        seed_all(1)
        again = [minibatch(method, second, step) for step in (2, 0, 1)]
        if workers > 1:
            minibatch(method, batches(workers - 1), 0)
        for step, one, other in zip((2, 0, 1), (there[2], there[0], there[1]), again, strict=True):
            if (place := difference(one, other)) is not None:
                message = f"{method} gives another minibatch {step} when worker 0 asks again: {place} differs; it must"
                how = "draw from a generator of its own, such as torch.Generator().manual_seed(...)"
                raise ScenarioError.at("task.task", f"{message} be a function of its arguments alone; {how}")
        if isinstance(first, Stream):
            _check_state(method, batches)


def _begun(method: str, batches: Callable[[int], Batches]) -> Batches:
    try:
        return batches(0)
    except Exception as error:
        raise ScenarioError.at("task.task", f"{method} raised {one_line(error)}") from error


def _check_state(method: str, batches: Callable[[int], Batches]) -> None:
    """A `ScenarioError` if a stream, restored from its state, continues otherwise, or if saving changes it.

    It is saved twice: after its first minibatch, and later, when a short epoch may have ended.
    """
    before, unsaved = batches(0), batches(0)
    minibatch(method, before, 0)
    source = before._source if isinstance(before, Stream) else None
    if not (hasattr(source, "state_dict") and hasattr(source, "load_state_dict")):
        raise ScenarioError.at("task.task", f"{method} returns {type(source).__name__}; {_NEED}")
    for taken in _SAVED_AFTER:
        if taken > 1:
            minibatch(method, before, taken - 1)
        after = _restored(method, before, batches(0))
        expected = [minibatch(method, before, step) for step in (taken, taken + 1)]
        seed_all(1)
        try:
            found = [cloned(after(step)) for step in (taken, taken + 1)]
        except Exception as error:
            raise ScenarioError.at("task.task", f"{method}: its state cannot be restored: {one_line(error)}") from error
        if (place := difference(expected, found)) is not None:
            message = f"{method}: restored by load_state_dict after {taken} it continues with another minibatch"
            raise ScenarioError.at("task.task", f"{message}: {place} differs")
        plain = [minibatch(method, unsaved, step) for step in (taken, taken + 1)]
        if (place := difference(expected, plain)) is not None:
            message = f"{method}: its state_dict() changes the minibatches that follow: {place} differs"
            raise ScenarioError.at("task.task", message)


def _restored(method: str, before: Batches, after: Batches) -> Batches:
    """`after` in the state of `before`."""
    try:
        after.load({name: value.clone() for name, value in before.state().items()})
    except TypeError as error:
        raise ScenarioError.at("task.task", f"{method}: its state cannot be saved: {one_line(error)}") from error
    except Exception as error:
        raise ScenarioError.at("task.task", f"{method}: its state cannot be restored: {one_line(error)}") from error
    seed_all(0)
    return after
