"""The result of a run from its backend, and its progress during the run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.backends.failing import evaluation_failed, logged
from asgd_lab.errors import RunFailed
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.tasks import Task
from asgd_lab.tasks.network import plain


class WorkerLook(NamedTuple):
    """The progress of a real worker."""

    state: str
    minibatches: int
    staleness: int  # of its last applied push
    waiting: float  # the share of the run's time outside of finished minibatches
    restarts: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run: seconds of its own clock, and the newest numbers."""

    seconds: float
    version: int
    minibatches: int
    staleness: int
    loss: float = math.nan  # the replicas' mean loss, if known
    error: float = math.nan  # the training error in the pushes
    workers: list[WorkerLook] = field(default_factory=list)  # in a real run


Watch = Callable[[Progress], None]


@dataclass(slots=True)
class Outcome:
    """A run that has ended in any way. `facts` join summary.json; `params` (P,) are the server's last version."""

    statistics: Statistics
    makespan_ns: int
    updates: int
    params: npt.NDArray[np.float32] | None
    final: dict[str, float]
    facts: dict[str, Any]
    status: Literal["done", "interrupted", "failed"] = "done"
    failure: str | None = None
    doubts: Sequence[str] = ()  # of the backend; see also `Task.doubts`

    @contextlib.contextmanager
    def evaluating(self, record: RunDirectory) -> Iterator[None]:
        """Save the parameters; an error of the evaluation inside becomes the run's failure, if it has none."""
        if self.params is not None:
            with contextlib.suppress(OSError):  # tried again, and reported, at the end
                record.save_params(self.params)
        try:
            yield
        except KeyboardInterrupt:
            if self.status == "done":
                self.status = "interrupted"
        except Exception as error:
            failed = evaluation_failed(error)
            if not isinstance(failed, RunFailed):
                raise
            failed.__cause__ = failed.__cause__ or error
            said = logged(record.path, failed)
            if self.failure is None:
                self.status, self.failure = "failed", said

    def evaluate(self, task: Task, record: RunDirectory, buffers: Mapping[str, Tensor], device: torch.device) -> None:
        """Evaluate the last version, if there is one, on that device with the first worker's buffers, for the table and
        the summary.
        """
        self.doubts = [*self.doubts, *task.doubts]
        if self.params is None:
            return
        if buffers:
            with contextlib.suppress(OSError):
                record.save_params(self.params, {name: plain(each).cpu().numpy() for name, each in buffers.items()})
        for split, metric, value in task.evaluate(torch.from_numpy(self.params).clone().to(device), buffers):
            self.final[f"{split}_{metric}"] = value
            minibatches = self.statistics.minibatches
            record.evals.add((self.makespan_ns, self.updates, minibatches, "server", split, metric, value))
