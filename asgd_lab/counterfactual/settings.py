"""The settings of a study, from values of any type: what is wrong with one is told before anything is executed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asgd_lab import arguments
from asgd_lab.counterfactual.arms import CAUSES, STALENESS, WATERFALL
from asgd_lab.errors import ScenarioError, among, shown

MOST_SEEDS = 1000
_MOST = 1000  # values of one setting
_ALL_CAUSES = (*CAUSES, WATERFALL)


@dataclass(frozen=True, slots=True)
class Settings:
    """The arms of a study."""

    doses: Sequence[float] = (1.0, 0.5, 0.0)
    rates: Sequence[float] = (1.0,)
    seeds: int = 10
    causes: Sequence[str] = (STALENESS,)
    rules_see: str = "recorded"
    metric: str | None = None

    def __post_init__(self) -> None:
        found = {
            "doses": _numbers("doses", self.doses, "from 0 to 1"),
            "rates": _numbers("rates", self.rates, "above 0"),
            "seeds": arguments.count("seeds", self.seeds, MOST_SEEDS),
            "causes": _causes(self.causes),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
        if not isinstance(self.rules_see, str) or self.rules_see not in ("recorded", "counterfactual"):
            raise ScenarioError(f"rules_see: must be recorded or counterfactual; got {shown(self.rules_see)}")
        if self.metric is not None and not (isinstance(self.metric, str) and self.metric):
            raise ScenarioError(f"metric: must be the name of a metric, such as test_loss; got {shown(self.metric)}")


def _numbers(name: str, values: object, what: str) -> tuple[float, ...]:
    limits = f"must be different numbers {what}, one at least"
    found = tuple(arguments.number(name, each) for each in _several(name, values, limits))
    wrong = [each for each in found if not (0 <= each <= 1 if name == "doses" else each > 0)]
    if wrong or not found or len(set(found)) < len(found):
        raise ScenarioError(f"{name}: {limits}; got {', '.join(f'{each:g}' for each in found) or 'none'}")
    return found


def _causes(values: object) -> tuple[str, ...]:
    limits = f"must be a list of different names, one at least; allowed: {', '.join(_ALL_CAUSES)}"
    found = []
    for cause in _several("causes", values, limits):
        if not isinstance(cause, str) or cause not in _ALL_CAUSES:
            raise ScenarioError(f"causes: there is no cause {shown(cause)}{among(cause, _ALL_CAUSES)}")
        found.append(str(cause))
    if not found or len(set(found)) < len(found):
        raise ScenarioError(f"causes: {limits}; got {', '.join(found) or 'none'}")
    return tuple(found)


def _several(name: str, values: object, limits: str) -> list[object]:
    """The values of a list, a tuple, an array or the like."""
    try:
        if not isinstance(values, str | bytes | Mapping) and isinstance(values, Iterable):
            found = list(itertools.islice(values, _MOST + 1))
            if len(found) <= _MOST:
                return found
    except Exception:  # iteration is anybody's code
        pass
    raise ScenarioError(f"{name}: {limits}; got {shown(values)}")
