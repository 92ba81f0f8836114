"""Copies of parameters taken during a measured run, to be evaluated after it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from asgd_lab.backends.build import Worker
from asgd_lab.backends.real.plan import SNAPSHOT_ROW, Plan
from asgd_lab.record import atomic_files
from asgd_lab.record.rowfile import RowFile, read_rows
from asgd_lab.tasks.network import plain

_SUFFIX = ".snapshots"
_BUFFERS = "worker-0"  # the worker that keeps buffers for evaluations of the server's parameters
_OF_BUFFER = "buffer."


class Snapshot(NamedTuple):
    """A copy of an owner's parameters with its time, its version, and the server's minibatches by then."""

    owner: str
    time_ns: int
    version: int
    minibatches: int
    params: Tensor  # (P,); empty if only buffers were kept
    buffers: dict[str, Tensor]  # changed buffers of the model: a replica's own, or worker 0's


class Snapshots:
    """The snapshots of one process: the first at or after every multiple of `every` of its minibatches."""

    def __init__(self, folder: Path, owner: str, every: float) -> None:
        self._rows = RowFile(folder / (owner + _SUFFIX), SNAPSHOT_ROW, existing=True)
        self._folder, self._owner, self._every = folder, owner, every
        self._next = 0.0
        self._goes_on = len(self._rows) > 0  # after a dead process

    def due(self, minibatches: int) -> bool:
        """Whether a copy is due at this count of the owner's minibatches; True only once per copy."""
        goes_on, self._goes_on = self._goes_on, False
        if minibatches < self._next:
            return False
        self._next = (minibatches // self._every + 1) * self._every
        return not goes_on

    def take(
        self, time_ns: int, version: int, minibatches: int, params: Tensor, buffers: Mapping[str, Tensor] | None = None
    ) -> None:
        """Keep a copy; `minibatches` are those in the server's parameters."""
        number = len(self._rows)
        arrays = {"params": params.cpu().numpy()}
        arrays |= {_OF_BUFFER + name: plain(buffer).cpu().numpy() for name, buffer in (buffers or {}).items()}
        atomic_files.write_arrays(_file(self._folder, self._owner, number), arrays, durable=False)
        self._rows.add(time_ns, version, minibatches, number)


class OfWorker:
    """The snapshots of a worker: its replica, after every W-th part of the scenario's interval over all W workers.

    Worker 0 keeps its buffers as well, for evaluations of the server's parameters: at the end, and if these are
    evaluated during the run, as often as a replica.
    """

    def __init__(self, plan: Plan, number: int) -> None:
        evaluate, workers = plan.scenario.evaluate, plan.scenario.workers
        every = math.inf if evaluate is None else evaluate.interval(workers) / workers
        whose = [] if evaluate is None else evaluate.parameters
        self._replica = Snapshots(plan.parts, f"replica-{number}", every) if "replicas" in whose else None
        keeps_buffers = not number and plan.size
        every = every if "server" in whose else math.inf
        self._buffers = Snapshots(plan.parts, _BUFFERS, every) if keeps_buffers else None

    def look(self, worker: Worker, time_ns: int, in_server: int) -> bool:
        """After a Train: keep a snapshot if due; return whether. `in_server`: minibatches in the server's version."""
        replica, kept = worker.replica, False
        if self._replica is not None and replica.vectors is not None and self._replica.due(replica.minibatches):
            kept, buffers = True, worker.learner.buffers()
            self._replica.take(time_ns, replica.version, in_server, replica.vectors.params, buffers)
        if self._buffers is not None and self._buffers.due(replica.minibatches):
            kept = self.end(worker, time_ns) or kept
        return kept

    def end(self, worker: Worker, time_ns: int) -> bool:
        """Keep the last buffers, if training has changed any; return whether it has."""
        replica, buffers = worker.replica, worker.learner.buffers()
        if self._buffers is None or not buffers:
            return False
        self._buffers.take(time_ns, replica.version, replica.minibatches, torch.empty(0), buffers)
        return True


def of_server(plan: Plan) -> Snapshots | None:
    """The snapshots of the server."""
    evaluate = plan.scenario.evaluate
    if evaluate is None or "server" not in evaluate.parameters:
        return None
    return Snapshots(plan.parts, "server", evaluate.interval(plan.scenario.workers))


def read(folder: Path) -> Iterator[Snapshot]:
    """Every snapshot in the folder, owner by owner, in order of time.

    The server's snapshots have worker 0's last buffers before them, or its first ones if there are none before.
    """
    for index in sorted(folder.glob("*" + _SUFFIX)):
        if index.stem == _BUFFERS:
            continue
        for time_ns, version, minibatches, number in read_rows(index, SNAPSHOT_ROW).tolist():
            params, buffers = _stored(folder, index.stem, number)
            if index.stem == "server":
                buffers = buffers_of_first(folder, time_ns)
            yield Snapshot(index.stem, time_ns, version, minibatches, params, buffers)


def buffers_of_first(folder: Path, time_ns: int | None = None) -> dict[str, Tensor]:
    """The last buffers of worker 0, of all or up to that time."""
    index = folder / (_BUFFERS + _SUFFIX)
    rows = read_rows(index, SNAPSHOT_ROW).tolist() if index.exists() else []
    if not rows:
        return {}
    before = [number for when, _, _, number in rows if time_ns is None or when <= time_ns]
    return _stored(folder, _BUFFERS, before[-1] if before else rows[0][3])[1]


def _stored(folder: Path, owner: str, number: int) -> tuple[Tensor, dict[str, Tensor]]:
    path = _file(folder, owner, number)
    earlier = path.with_suffix(".npy")  # from an earlier version, in a resumed run
    if earlier.exists() and not path.exists():
        return torch.from_numpy(atomic_files.read_array(earlier)).clone(), {}
    arrays = atomic_files.read_arrays(path)
    buffers = {name.removeprefix(_OF_BUFFER): array for name, array in arrays.items() if name.startswith(_OF_BUFFER)}
    return (
        torch.from_numpy(arrays["params"]).clone(),  # a clone is aligned
        {name: torch.from_numpy(array) for name, array in buffers.items()},
    )


def _file(folder: Path, owner: str, number: int) -> Path:
    return folder / f"{owner}.{number}.npz"
