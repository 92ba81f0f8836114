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
from asgd_lab.tasks.trees import cloned, difference, on

_STREAM, _NEXT = "stream.", "stream.next"
_NEED = "a stream needs state_dict() and load_state_dict(): else a resumed run would start it over without a word"


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


def check_batches(method: str, batches: Callable[[int], Batches], workers: int = 1) -> None:
    """A `ScenarioError` if a worker's minibatches are no function of its number and the step.

    `batches` makes a worker's minibatches. The first three are read in two orders, after different random numbers; of
    the last of the `workers` only the first is.
    """
    with preserving_generators():
        try:
            seed_all(0)
            first, second = batches(0), batches(0)
            there = [cloned(first(step)) for step in range(3)]
            seed_all(1)
            again = [cloned(second(step)) for step in (2, 0, 1)]
            if workers > 1:
                batches(workers - 1)(0)
        except RunFailed as error:
            raise ScenarioError.at("task.task", f"{method}: {error}") from error
        except Exception as error:
            raise ScenarioError.at("task.task", f"{method} raised {one_line(error)}") from error
        for step, one, other in zip((2, 0, 1), (there[2], there[0], there[1]), again, strict=True):
            if (place := difference(one, other)) is not None:
                message = f"{method} gives another minibatch {step} when worker 0 asks again: {place} differs; it must"
                raise ScenarioError.at("task.task", f"{message} be a function of its arguments alone")
        if isinstance(first, Stream):
            _check_state(method, batches)


def _check_state(method: str, batches: Callable[[int], Batches]) -> None:
    """A `ScenarioError` if a stream, restored from its state, continues otherwise."""
    before, after = batches(0), batches(0)
    before(0)
    source = before._source if isinstance(before, Stream) else None
    if not (hasattr(source, "state_dict") and hasattr(source, "load_state_dict")):
        raise ScenarioError.at("task.task", f"{method} returns {type(source).__name__}; {_NEED}")
    try:
        after.load({name: value.clone() for name, value in before.state().items()})
        seed_all(0)
        expected = [cloned(before(step)) for step in (1, 2)]
        seed_all(1)
        found = [cloned(after(step)) for step in (1, 2)]
    except TypeError as error:
        raise ScenarioError.at("task.task", f"{method}: its state cannot be saved: {one_line(error)}") from error
    except Exception as error:
        raise ScenarioError.at("task.task", f"{method}: its state cannot be restored: {one_line(error)}") from error
    if (place := difference(expected, found)) is not None:
        message = f"{method}: restored by load_state_dict it continues with another minibatch: {place} differs"
        raise ScenarioError.at("task.task", message)
