"""Copies of parameters taken during a measured run, to be evaluated when it is over and nobody is measured any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from asgd_lab.backends.process.plan import SNAPSHOT_ROW, Plan
from asgd_lab.record import whole
from asgd_lab.record.rowfile import RowFile, read_rows

_SUFFIX = ".snapshots"


class Snapshot(NamedTuple):
    """Whose parameters, when, at which version, and how many minibatches the server's had in them by then."""

    owner: str
    time_ns: int
    version: int
    minibatches: int
    params: Tensor  # (P,)


class Snapshots:
    """What one process keeps: the first at or after every multiple of `every` of its minibatches."""

    def __init__(self, folder: Path, owner: str, every: float) -> None:
        self._rows = RowFile(folder / (owner + _SUFFIX), SNAPSHOT_ROW, go_on=True)
        self._folder, self._owner, self._every = folder, owner, every
        self._next = 0.0
        self._goes_on = len(self._rows) > 0  # after a process that is gone

    def due(self, minibatches: int) -> bool:
        """Is a copy due at this count of the owner's minibatches? Asked again, the answer is no."""
        goes_on, self._goes_on = self._goes_on, False
        if minibatches < self._next:
            return False
        self._next = (minibatches // self._every + 1) * self._every
        return not goes_on

    def take(self, time_ns: int, version: int, minibatches: int, params: Tensor) -> None:
        """Keep a copy; `minibatches` are those in the server's parameters."""
        number = len(self._rows)
        path = _file(self._folder, self._owner, number)
        whole.write_arrays(path, {"params": params.cpu().numpy()}, durable=False)
        self._rows.add(time_ns, version, minibatches, number)


def of_replica(plan: Plan, worker: int) -> Snapshots | None:
    """What worker `worker` keeps: every W-th part of what the scenario says over all W workers."""
    evaluate = plan.scenario.evaluate
    if evaluate is None or "replicas" not in evaluate.parameters:
        return None
    return Snapshots(plan.parts, f"replica-{worker}", evaluate.interval(plan.scenario.workers) / plan.scenario.workers)


def of_server(plan: Plan) -> Snapshots | None:
    """What the server keeps."""
    evaluate = plan.scenario.evaluate
    if evaluate is None or "server" not in evaluate.parameters:
        return None
    return Snapshots(plan.parts, "server", evaluate.interval(plan.scenario.workers))


def read(folder: Path) -> Iterator[Snapshot]:
    """Every snapshot in the folder, owner by owner, in order of time."""
    for index in sorted(folder.glob("*" + _SUFFIX)):
        for time_ns, version, minibatches, number in read_rows(index, SNAPSHOT_ROW).tolist():
            path = _file(folder, index.stem, number)
            earlier = path.with_suffix(".npy")  # of an earlier version, whose run went on from a checkpoint
            is_earlier = earlier.exists() and not path.exists()
            params = whole.read_array(earlier) if is_earlier else whole.read_arrays(path)["params"]
            stored = torch.from_numpy(params)
            yield Snapshot(index.stem, time_ns, version, minibatches, stored.clone())  # a clone is aligned


def _file(folder: Path, owner: str, number: int) -> Path:
    return folder / f"{owner}.{number}.npz"
