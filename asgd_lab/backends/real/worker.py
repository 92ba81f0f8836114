"""A worker process: builds its replica, trains, and talks to the server; it writes its parameters and its mailbox only.

If the algorithm allows updates in place of parameters, a replica on the CPU trains directly in its mailbox: `measure`
turns the parameters into the update, and the next fetch overwrites them. The center is the granted version itself. On a
GPU the replica has vectors of its own, staged by its end of the transport.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import traceback
from time import monotonic_ns as now_ns
from typing import Any

import torch
from torch import Tensor

from asgd_lab.backends import devices
from asgd_lab.backends.build import Worker, build_algorithm, build_task, build_worker
from asgd_lab.backends.event_log import Attach
from asgd_lab.backends.real.carrier import Carrier, LifeOver
from asgd_lab.backends.real.checkpoints import restore_worker, save_worker
from asgd_lab.backends.real.emulation import precise_timers
from asgd_lab.backends.real.plan import FATAL, Plan, settle
from asgd_lab.backends.real.train import NotFinite
from asgd_lab.backends.real.transport import Closed
from asgd_lab.protocol.messages import Join, Why
from asgd_lab.tasks.base import one_line

FUTILE = 5
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(plan: Plan, number: int, process: int, place: Any) -> None:
    """The worker's `process`-th process: build, warm up, report ready, and run the program to its end."""
    settle(plan, f"worker-{number}")
    try:
        WorkerProcess(plan, number, process, place).run()
    except Exception as error:
        # A loss that the scenario does not stand, or no disk any more, which end every try.
        # Nor is there more memory on a GPU the next time.
        is_fatal = isinstance(error, NotFinite | torch.OutOfMemoryError) or (
            isinstance(error, OSError) and error.errno in NO_ROOM
        )
        traceback.print_exc()
        print(one_line(error), file=sys.stderr, flush=True)  # the last line, which the parent shows
        sys.exit(FATAL if is_fatal else 1)


class WorkerProcess:
    """One worker of a real run, in its process."""

    def __init__(self, plan: Plan, number: int, process: int, place: Any) -> None:
        self.plan, self.number = plan, number
        scenario, transport = plan.scenario, plan.transport
        self.device = devices.of(scenario, number)
        self.task = build_task(scenario, transport.tensors(), checked=True, device=self.device)
        self.algorithm = algorithm = build_algorithm(scenario)
        staged = self.device if scenario.backend.device == "cuda" else None
        self.end = transport.worker_end(number, place, staged, algorithm.overlaps)
        self.updates = [self.end.update(buffer) for buffer in range(algorithm.depth)]
        self.params: Tensor | None = None  # if they are not the replica's own
        if algorithm.shared:
            self.params = transport.slot(0, writable=True)
        elif staged is None and getattr(algorithm.vectors, "in_place", False):
            self.params = self.updates[0]
            if process == 0:
                self.params.copy_(transport.slot(0))
        if scenario.backend.device == "emulated":
            precise_timers()
        self.carrier = Carrier(plan, number, process, self.end, algorithm, self._save)
        self.in_vain = 0  # successive lives that ended before their first push because of a loss
        self.worker = self._build()
        self.is_restored = process == 0 and restore_worker(plan, self.worker)

    def _build(self) -> Worker:
        """Build the replica, the local optimizer and the client of a life."""
        initial = self.plan.transport.slot(0).to(self.device)
        return build_worker(self.task, self.algorithm, self.number, initial, self.updates, self.params)

    def run(self) -> None:
        """Run until the program or the run ends; a failed life is followed by another."""
        self.worker.learner.warm_up()
        try:
            with contextlib.suppress(Closed):
                while not self._live():
                    self.worker = self._build()
            self.carrier.snapshots.end(self.worker, now_ns() - self.carrier.start_ns)
        finally:
            self.end.close()
            self.carrier.close()

    def _live(self) -> bool:
        """Run one life; False if another may follow."""
        life = (now_ns() << 8 | self.number) & (1 << 62) - 1
        begins = Attach if self.is_restored else Join
        welcome = self.carrier.join(self.worker, begins(self.number, life), life)
        client, replica = self.worker.client, self.worker.replica
        if not self.is_restored:
            client.begin(welcome.incarnation, welcome.pushes, welcome.minibatches, welcome.fetches)
        self.is_restored = False
        try:
            self.carrier.carry()
        except LifeOver:
            return False
        except NotFinite:
            self.end.flush()  # pushes before this round count
            faults = self.plan.scenario.faults
            self.in_vain = self.in_vain + 1 if replica.sequence == welcome.pushes else 1
            if faults is None or faults.on_not_finite == "stop" or self.in_vain == FUTILE:
                raise
            with contextlib.suppress(Closed):
                self.carrier.leave(Why.NOT_FINITE)
            return False
        return True

    def _save(self, checkpoint: int) -> bool:
        """Save the state that outlives a round; the waiting fetch is resent by the worker that resumes from it."""
        return save_worker(self.plan, self.worker, checkpoint)
