"""Effects on the lines of a timeline: a worker with lanes below it, then servers; no drawing library is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from asgd_lab.record import tracks
from asgd_lab.record.tracks import DOWN, UP

if TYPE_CHECKING:
    import pandas as pd


class Stretch(NamedTuple):
    """A run's rows that overlap a span of time, and the line on which each is drawn."""

    effects: pd.DataFrame
    y: npt.NDArray[np.float64]
    names: dict[float, str]  # of the lines; "" for a lane of the line above
    transfers: dict[str, npt.NDArray[np.bool_]]  # by direction: which rows


def of(effects: pd.DataFrame) -> Stretch:
    """Rows of the effects table in their order, numbered from 0, and their lines."""
    import pandas as pd

    serves = effects["worker"] < 0
    place = pd.DataFrame(
        {
            "serves": serves,
            "number": effects["worker"].where(~serves, effects["shard"].clip(lower=0)),
            "lane": tracks.lanes(effects),
        }
    )
    # A worker's lanes lie below it, the servers below all workers.
    order = place.drop_duplicates().sort_values(["serves", "number", "lane"])
    y = -np.arange(len(order), dtype=np.float64) - 0.7 * order["serves"].to_numpy()
    servers = int(order["serves"].sum())
    names = {}
    for at, (serving, number, lane) in zip(y.tolist(), order.itertuples(index=False), strict=True):
        names[at] = (
            "" if lane else ("server" if servers == 1 else f"server {number}") if serving else f"worker {number}"
        )
    where = place.merge(order.assign(y=y), on=["serves", "number", "lane"], how="left")["y"]
    kind = tracks.kinds(effects)
    transfers = {name: kind == which for name, which in (("up", UP), ("down", DOWN)) if (kind == which).any()}
    return Stretch(effects, where.to_numpy(np.float64), names, transfers)
