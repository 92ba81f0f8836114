"""Costs of a hardware model, fitted to the tables of measured runs: trimmed means of recorded durations.

The runs have one worker each, so no duration contains a wait for another worker. Throughput follows means; a tenth of
the values at either end is left out, because of the operating system's interruptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError

if TYPE_CHECKING:
    import pandas as pd

TRIMMED = 0.1  # of the values, at either end
MOST_SAMPLES = 20_000  # in a scenario, which is a text


@dataclass(frozen=True, slots=True)
class Fitted:
    """The measured costs of one push and one fetch, in seconds, and a sample of the minibatches' compute times."""

    client_push_s: float  # to compute the update
    client_fetch_s: float  # to copy the center
    cold_s: float  # the extra time of the first minibatch after a fetch, whose parameters are in no cache
    server_push_s: float
    server_fetch_s: float
    latency_s: float  # one way through the control channel, including the wake-up of the other end
    step_times_s: npt.NDArray[np.float64]


def step_times_s(effects: pd.DataFrame, minibatches: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Seconds of every recorded minibatch, from the end of the previous one or from the start of its Train."""
    first, later = _step_times_s(effects, minibatches)
    return np.concatenate([first, later])


def few(samples_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At most MOST_SAMPLES samples: all of them, or the means of equal shares of the sorted ones."""
    if len(samples_s) <= MOST_SAMPLES:
        return samples_s
    return np.array([share.mean() for share in np.array_split(np.sort(samples_s), MOST_SAMPLES)])


def fit(runs: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> Fitted:
    """Fit (effects, minibatches) of one worker's runs, whose rounds should differ in length.

    The first minibatch after a fetch is fitted apart from the later ones, which are computation alone.
    """
    import pandas as pd

    effects = pd.concat([effects for effects, _ in runs])
    took = (effects["end_s"] - effects["start_s"]).groupby(effects["kind"].astype(str)).agg(_typical)

    def typical(kind: str) -> float:
        return float(took.get(kind, 0.0))

    firsts, laters = zip(*(_step_times_s(*run) for run in runs), strict=True)
    first, later = np.concatenate(firsts), np.concatenate(laters)
    round_trip_s, fetch_trip_s = typical("push") - typical("apply"), typical("fetch") - typical("grant")
    return Fitted(
        client_push_s=typical("measure"),
        client_fetch_s=typical("adopt"),
        cold_s=_cold_s(first, later),
        server_push_s=typical("apply"),
        server_fetch_s=typical("grant"),
        latency_s=max(0.0, (round_trip_s + fetch_trip_s) / 4),
        step_times_s=later if len(later) else first,
    )


def _typical(values: npt.ArrayLike) -> float:
    from scipy import stats

    return float(stats.trim_mean(np.asarray(values), TRIMMED))


def _cold_s(first: npt.NDArray[np.float64], later: npt.NDArray[np.float64]) -> float:
    """The extra time of first minibatches over later ones; 0 unless it exceeds three standard errors."""
    if min(len(first), len(later)) < 2:
        return 0.0
    difference = _typical(first) - _typical(later)
    from scipy import stats

    error = math.hypot(stats.sem(first), stats.sem(later))
    return difference if difference > 3 * error else 0.0


def _step_times_s(
    effects: pd.DataFrame, minibatches: pd.DataFrame
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Seconds of the first minibatch of each Train, and of the later ones."""
    trains = effects[effects["kind"] == "train"]
    if not len(minibatches):  # a task without minibatches records only whole Trains
        whole = trains[trains["steps"] > 0]
        return np.empty(0), _times(np.asarray((whole["end_s"] - whole["start_s"]) / whole["steps"], np.float64))
    firsts, laters = [], []
    for worker, mine in minibatches.groupby("worker"):
        ends = np.sort(mine["time_s"].to_numpy())
        starts = np.sort(trains.loc[trains["worker"] == worker, "start_s"].to_numpy())
        before = np.concatenate([[-np.inf], ends[:-1]])
        start = starts[np.clip(np.searchsorted(starts, ends) - 1, 0, None)]
        is_first = before <= start
        times = ends - np.maximum(before, start)
        firsts.append(times[is_first])
        laters.append(times[~is_first])
    return _times(np.concatenate(firsts)), _times(np.concatenate(laters))


def _times(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The times; ScenarioError unless all are finite and positive."""
    wrong = times[~(np.isfinite(times) & (times > 0))]
    if len(wrong):
        message = f"{len(wrong):,} of {len(times):,} recorded step times are not finite and positive: the first is"
        raise ScenarioError(f"{message} {wrong[0]:g} s")
    return times
