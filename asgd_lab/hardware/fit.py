"""From the tables of a measured run to the costs of a hardware model: medians of what was recorded, nothing assumed.

What is fitted comes from one worker's run, so that nobody waited for anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True, slots=True)
class Fitted:
    """The costs of one push and one fetch as measured, in seconds; compute time is a sample of minibatches."""

    client_push_s: float  # making the update
    client_fetch_s: float  # taking over the center
    server_push_s: float
    server_fetch_s: float
    latency_s: float  # one way, through the control channel, with waking the other end
    step_times_s: npt.NDArray[np.float64]


def step_times_s(effects: pd.DataFrame, minibatches: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Seconds of every recorded minibatch: from the end of the one before it, or from the start of its Train."""
    trains = effects[effects["kind"] == "train"]
    times: list[npt.NDArray[np.float64]] = []
    for worker, mine in minibatches.groupby("worker"):
        ends = np.sort(mine["time_s"].to_numpy())
        starts = np.sort(trains.loc[trains["worker"] == worker, "start_s"].to_numpy())
        before = np.concatenate([[-np.inf], ends[:-1]])
        last_start = starts[np.clip(np.searchsorted(starts, ends) - 1, 0, None)]
        times.append(ends - np.maximum(before, last_start))
    if not times:  # a task without minibatches records how long whole Trains took
        whole = trains[trains["steps"] > 0]
        return np.asarray((whole["end_s"] - whole["start_s"]) / whole["steps"], np.float64)
    return np.concatenate(times)


def fit(effects: pd.DataFrame, minibatches: pd.DataFrame) -> Fitted:
    """Fit one worker's run. The first rounds, in which caches fill, count as all others: medians do not mind."""
    took = (effects["end_s"] - effects["start_s"]).groupby(effects["kind"], observed=False).median()

    def median(kind: str) -> float:
        value = took.get(kind, 0.0)
        return 0.0 if pd.isna(value) else float(value)

    round_trip_s = median("push") - median("apply")
    fetch_trip_s = median("fetch") - median("grant")
    return Fitted(
        client_push_s=median("measure"),
        client_fetch_s=median("adopt"),
        server_push_s=median("apply"),
        server_fetch_s=median("grant"),
        latency_s=max(0.0, (round_trip_s + fetch_trip_s) / 4),
        step_times_s=step_times_s(effects, minibatches),
    )
