"""One worker in virtual time: what it waits for, since when, and what comes next.

A round is a chain of callbacks, each of which starts the wait for the next; a wait of no time is no event but a call.
Callbacks take simpy's event and ignore it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgd_lab.backends.build import Worker
from asgd_lab.errors import ProtocolError
from asgd_lab.hardware.costs import StepTimes
from asgd_lab.protocol.effects import Fetch, Push, Train
from asgd_lab.protocol.server import FetchGrant, PushGrant
from asgd_lab.record.tables import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgd_lab.backends.sim.simulation import Simulation

FETCH, TRAIN, PUSH, APPLY, GRANT = (KINDS.index(kind) for kind in ("fetch", "train", "push", "apply", "grant"))


class SimWorker:
    """A worker's program, interpreted in virtual time."""

    __slots__ = (
        "_begun",
        "_costs",
        "_ends",
        "_env",
        "_fetch_grant",
        "_minibatch",
        "_next_evaluation",
        "_program",
        "_push_grant",
        "_service",
        "_since",
        "_times",
        "_training",
        "_waited",
        "number",
        "replica",
        "sim",
    )

    def __init__(self, sim: Simulation, entry: Worker) -> None:
        scenario = sim.scenario
        self.sim, self._env, self._costs = sim, sim.env, sim.costs
        self.replica, self.number = entry.replica, entry.replica.worker
        self._program, self._minibatch = entry.program, entry.learner.minibatch
        stated_step_s = getattr(scenario.task, "step_s", None)
        self._times = StepTimes(scenario.hardware.compute, scenario.seed, self.number, stated_step_s)
        self._begun = 0  # when the effect was begun
        self._since = 0  # when its request reached the server
        self._waited = 0  # for the server or for the gate
        self._ends: list[int] = []  # of the minibatches of a Train, from its start
        self._training = False
        self._next_evaluation = 0.0
        self._fetch_grant = FetchGrant(self.number, 0, 0)
        self._push_grant: PushGrant | None = None
        self._service = (0, 0, 0)  # of the last push: its start and end, and how long it waited for it

    def resume(self, _: object = None) -> None:
        """Go on to the program's next effect and begin it."""
        effect = next(self._program, None)
        self._begun = self._env.now
        kind = type(effect)
        if kind is Train:
            self._train()
        elif kind is Push:
            self._compute(self._costs.client_push_ns, self._send)
        elif kind is Fetch:
            self._after(self._costs.latency_ns, self._ask)
        elif effect is None:
            self.sim.leave(self.number)
        else:
            raise ProtocolError(f"the sim backend does not interpret {kind.__name__}")

    def stop(self) -> None:
        """The run is over: count what this worker was computing."""
        if self._training:
            self.sim.statistics.worker_busy(self.number, self._env.now - self._begun)

    # ------------------------------------------------------------------ fetch

    def _ask(self, _: object = None) -> None:
        self._since = self._env.now
        self.sim.queue.submit(self._costs.server_fetch_ns, self._asked, queues=not self._costs.one_sided_fetch)

    def _asked(self, start: int, waited: int) -> None:
        sim = self.sim
        if sim.over.triggered:
            return
        if self._costs.server_fetch_ns:
            now = self._env.now
            sim.served(now - start)
            round = self.replica.sequence + 1
            if sim.keep_round(round):
                sim.record.effects.add((-1, round, GRANT, start, now, waited, -1, -1, 0, sim.task.size_bytes))
        sim.deliver(sim.server.on_fetch(self.number))

    def granted(self, grant: FetchGrant) -> None:
        """The server's answer leaves it now."""
        if self.sim.over.triggered:
            return
        costs, parameters = self._costs, self.sim.server.parameters
        self._fetch_grant = grant
        self._waited = self._env.now - self._since - costs.server_fetch_ns
        if not grant.steps:
            self._after(costs.latency_ns, self._fetched)
            return
        if parameters is not None:
            assert self.replica.vectors is not None
            self.replica.vectors.center = parameters.vector(parameters.pinned(self.number))
        self._after(costs.latency_ns + costs.transfer_ns, self._received)

    def _received(self, _: object = None) -> None:
        self._compute(self._costs.client_fetch_ns, self._fetched)

    def _fetched(self, _: object = None) -> None:
        _, version, steps = self._fetch_grant
        self.replica.grant(version, steps)
        self._note(FETCH, self._env.now, self._waited, version, -1, steps, self.sim.task.size_bytes if steps else 0)
        self.resume()

    # ------------------------------------------------------------------ train

    def _train(self) -> None:
        sim, steps = self.sim, self.replica.steps
        self._training = True
        if sim.task.size:
            self._ends = self._times.ends_ns(steps)
            total = self._ends[-1]
        else:
            total = self._times.total_ns(steps)
        if sim.training_cores is not None:
            sim.training_cores.work(total, self._trained)
        else:
            self._after(total, self._trained)

    def _trained(self, _: object = None) -> None:
        sim, replica = self.sim, self.replica
        if sim.over.triggered:  # at this very nanosecond, before us
            return
        self._training = False
        sim.statistics.worker_busy(self.number, self._env.now - self._begun)
        # What a worker computes depends on nothing that happened since its fetch: it may be computed only now.
        loss_sum, error_sum = self._learn() if sim.task.size else (0.0, 0.0)
        replica.trained(loss_sum, error_sum)
        self._note(TRAIN, self._env.now, 0, replica.version, -1, replica.steps, 0)
        if sim.evaluates_replicas and replica.minibatches >= self._next_evaluation and replica.vectors is not None:
            every = sim.every / sim.scenario.workers
            self._next_evaluation = (replica.minibatches // every + 1) * every
            sim.evaluate(f"replica-{self.number}", replica.version, replica.vectors.params)
        self.resume()

    def _learn(self) -> tuple[float, float]:
        """Take the minibatches of the Train that has just ended; the sums of their losses and errors."""
        first, begun = self.replica.minibatches, self._begun
        stretch = (self._env.now - begun) / self._ends[-1]  # more than 1 where cores were short
        loss_sum = error_sum = 0.0
        rows = []
        for step, end in enumerate(self._ends, first):
            loss, error = self._minibatch(step)
            loss_sum += loss
            error_sum += error
            rows.append((self.number, step, begun + round(end * stretch), loss, error))
        if self.sim.keep_round(self.replica.sequence + 1):
            self.sim.record.minibatches.extend(rows)
        return loss_sum, error_sum

    # ------------------------------------------------------------------ push

    def _send(self, _: object = None) -> None:
        self._after(self._costs.latency_ns + self._costs.transfer_ns, self._arrive)

    def _arrive(self, _: object = None) -> None:
        self._since = self._env.now
        self.sim.queue.submit(self._costs.server_push_ns, self._served)

    def _served(self, start: int, waited: int) -> None:
        sim = self.sim
        if sim.over.triggered:
            return
        now = self._env.now
        grants = sim.server.on_push(self.replica.arriving())
        sim.served(now - start)
        self._service = (start, now, waited)
        sim.count(grants)
        sim.arrived()
        sim.deliver(grants)

    def pushed(self, grant: PushGrant) -> None:
        """The server has let go of the update."""
        self._push_grant = grant
        if self.sim.keep_round(grant.sequence):
            row = (-1, grant.sequence, APPLY, *self._service, grant.version, grant.staleness, grant.steps)
            self.sim.record.effects.add((*row, self.sim.task.size_bytes))
        self._waited = self._env.now - self._since - self._costs.server_push_ns
        if self.sim.over.triggered:  # the answer to the push that ended the run is still on its way
            self._note_push(self._env.now + self._costs.latency_ns)
        else:
            self._after(self._costs.latency_ns, self._acknowledged)

    def _acknowledged(self, _: object = None) -> None:
        self._note_push(self._env.now)
        self.resume()

    def _note_push(self, ended: int) -> None:
        grant = self._push_grant
        assert grant is not None
        size = self.sim.task.size_bytes
        self._note(PUSH, ended, self._waited, grant.version, grant.staleness, grant.steps, size)

    # ------------------------------------------------------------------ both

    def _after(self, delay_ns: int, then: Callable[[object], None]) -> None:
        if delay_ns:
            self._env.timeout(delay_ns).callbacks.append(then)
        else:
            then(None)

    def _compute(self, demand_ns: int, then: Callable[[object], None]) -> None:
        """Software on the worker's host: on a core of the node where those are shared."""
        if demand_ns and self.sim.cores is not None:
            self.sim.cores.work(demand_ns, then)
        else:
            self._after(demand_ns, then)

    def _note(self, kind: int, ended: int, waited: int, version: int, staleness: int, steps: int, size: int) -> None:
        # A fetch opens the round that the next push closes.
        round = self.replica.sequence + (kind != PUSH)
        sim = self.sim
        if sim.keep_round(round):
            row = (self.number, round, kind, self._begun, ended, waited, version, staleness, steps, size)
            sim.record.effects.add(row)
