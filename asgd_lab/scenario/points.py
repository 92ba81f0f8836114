"""The points of a sweep: counted by arithmetic, and made one by one on demand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from asgd_lab.scenario.schema import Scenario

MOST_RUNS = 100_000
_KEPT = 1024  # points; a larger sweep makes its points again in each iteration


@dataclass(frozen=True, slots=True)
class Point:
    """One scenario of a sweep; `name` is like algorithm.n_sync=10,workers=2, or "" without a sweep."""

    name: str
    values: dict[str, Any]
    scenario: Scenario


class Points(Sequence[Point]):
    """`count` points; `make` makes each by its number."""

    def __init__(self, count: int, make: Callable[[int], Point]) -> None:
        self._count, self._make = count, make
        self._kept: OrderedDict[int, Point] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...
    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        number = range(self._count)[index]
        point = self._kept.get(number)
        if point is None:
            point = self._kept[number] = self._make(number)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return point
