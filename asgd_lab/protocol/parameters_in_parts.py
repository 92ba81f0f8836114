"""The parameters of a run with several parts. P is the length of the flat vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from asgd_lab.protocol.parameters import Memory, Parameters
from asgd_lab.protocol.rules import Rule


class PartMemory(Memory):
    """One part's span of the memory of all parts."""

    def __init__(self, whole: Memory, span: slice, part: int, scalars: int) -> None:
        """`scalars`: of the rule in each part."""
        self._whole, self._span, self._scalars = whole, span, 2 * part * scalars

    def slot(self, number: int) -> Tensor:
        """(its span) memory for a version."""
        return self._whole.slot(number)[self._span]

    def state(self, number: int) -> Tensor:
        """(its span) memory for a state vector."""
        return self._whole.state(number)[self._span]

    def scalar(self, number: int) -> Tensor:
        """() the scalars of the parts are numbered one part after the other."""
        return self._whole.scalar(self._scalars + number)

    def copy(self, number: int) -> Tensor:
        """(its span) memory for a copy of a kept update."""
        return self._whole.copy(number)[self._span]


class Spanned(Mapping[int, Tensor]):
    """One span of each worker's update."""

    def __init__(self, whole: Mapping[int, Tensor], span: slice) -> None:
        self._whole, self._span = whole, span

    def __getitem__(self, worker: int) -> Tensor:
        return self._whole[worker][self._span]

    def __iter__(self) -> Iterator[int]:
        return iter(self._whole)

    def __len__(self) -> int:
        return len(self._whole)


class InParts:
    """The parameters of several parts, each with versions in slots of its own."""

    def __init__(
        self, initial: Tensor, rule: Rule, mailboxes: Mapping[int, Tensor], spans: Sequence[slice], workers: int,
        memory: Memory | None = None, counting: bool = False,
    ) -> None:  # fmt: skip
        """See `Parameters`; `workers`: in the run."""
        scalars = rule.all_scalars(workers)
        self.parts = [
            Parameters(
                initial[span], rule, Spanned(mailboxes, span),
                Memory(initial[span]) if memory is None else PartMemory(memory, span, part, scalars), counting,
            )
            for part, span in enumerate(spans)
        ]  # fmt: skip

    @property
    def current(self) -> Tensor:
        """(P,) a copy of the newest version of every part."""
        return torch.cat([each.current for each in self.parts])

    @property
    def counting(self) -> bool:
        """Whether updates are only counted; see `Parameters`."""
        return self.parts[0].counting

    @counting.setter
    def counting(self, counting: bool) -> None:
        for each in self.parts:
            each.counting = counting

    def vector(self, slot: int, part: int) -> Tensor:
        """(its span) the memory of a slot of a part; read only."""
        return self.parts[part].vector(slot)

    def moved(self, worker: int) -> float:
        """The Euclidean distance between the newest versions and those that `worker` has pinned."""
        return math.sqrt(sum(each.moved(worker) ** 2 for each in self.parts))

    def tensors(self) -> dict[str, Tensor]:
        """The content of a checkpoint, by part and name."""
        return {
            f"part-{part}.{name}": tensor
            for part, each in enumerate(self.parts)
            for name, tensor in each.tensors().items()
        }
