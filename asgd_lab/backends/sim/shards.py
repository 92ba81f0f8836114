"""The protocol's server, or several that are independent: each then makes versions of its own slice of the vector.

Independent servers are DistBelief's shards (Dean et al. 2012, section 4.1): a worker's center consists of slices of
different versions. The first server has the budget and decides the minibatches of a grant.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from asgd_lab.backends.build import build_budget, build_server
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import Answer, Join, Leave
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.parameters_in_parts import InParts
from asgd_lab.protocol.server import Server
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task


class Shards:
    """All `servers`; `first` decides on the budget. A mailbox is the list of a worker's push buffers."""

    def __init__(
        self, scenario: Scenario, task: Task, algorithm: Algorithm, initial: Tensor, buffers: list[list[Tensor]]
    ) -> None:
        count = scenario.hardware.server.count if scenario.hardware.server.independent else 1
        self._buffers = buffers
        self._mailboxes: list[dict[int, Tensor]] = [{} for _ in range(count)]
        bounds = [index * task.size // count for index in range(count + 1)]
        self._spans = [slice(start, end) for start, end in itertools.pairwise(bounds)]
        self.servers: list[Server] = []
        for index, (span, mailboxes) in enumerate(zip(self._spans, self._mailboxes, strict=True)):
            budget = build_budget(scenario) if index == 0 else Budget()
            self.servers.append(
                build_server(task, algorithm, budget, initial[span], mailboxes, workers=scenario.workers)
            )
        self.first = self.servers[0]
        self.staleness: list[Counter[int]] = [Counter() for _ in self.servers] if count > 1 else []
        for worker in range(scenario.workers):
            self.take_from(worker, 0)

    @property
    def current(self) -> Tensor | None:
        """(P,) the newest version of every slice; read only."""
        parts = [server.parameters for server in self.servers]
        if parts[0] is None:
            return None
        return torch.cat([part.current for part in parts if part is not None]) if len(parts) > 1 else parts[0].current

    def take_from(self, worker: int, buffer: int) -> None:
        """Take the worker's next push from this buffer."""
        for span, mailboxes in zip(self._spans, self._mailboxes, strict=True):
            mailboxes[worker] = self._buffers[worker][buffer][span] if len(self.servers) > 1 else (
                self._buffers[worker][buffer]
            )  # fmt: skip

    def center(self, worker: int) -> Tensor | None:
        """(P,) the worker's last granted version itself, or a copy assembled from slices."""
        parts = [server.parameters for server in self.servers]
        if len(parts) == 1:
            return _pinned(parts[0], worker)
        found = [_pinned(part, worker) for part in parts]
        return None if found[0] is None else torch.cat([one for one in found if one is not None])

    def facts(self) -> dict[str, Any]:
        """The staleness of each shard, if there are several."""
        if not self.staleness:
            return {}
        found = [
            {"mean": sum(k * n for k, n in one.items()) / max(1, sum(one.values())), "max": max(one, default=0)}
            for one in self.staleness
        ]
        return {"staleness_per_shard": found}

    def join(self, worker: int, now_ns: int) -> None:
        """Let a worker join all servers."""
        for server in self.servers:
            server.hear(Join(worker), now_ns)

    def leave(self, leave: Leave, now_ns: int) -> list[Answer]:
        """Let a worker leave all servers; return the first server's answers."""
        for server in self.servers[1:]:
            server.hear(leave, now_ns)
        return self.first.hear(leave, now_ns)


def _pinned(parameters: Parameters | InParts | None, worker: int) -> Tensor | None:
    return None if parameters is None else parameters.parts[0].vector(parameters.parts[0].pinned(worker))
