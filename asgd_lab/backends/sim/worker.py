"""One worker in virtual time: carries the messages of its end of the protocol, and takes the time of its minibatches.

A worker's own time may be ahead of the clock: what concerns nobody else (its costs, the way of an answer, the start of
its next minibatches) is arithmetic, and only what meets others waits for its moment. The mathematics of a Train is done
when its time is over; what a worker computes depends on nothing that happened since its fetch.
"""

from __future__ import annotations

import math
from typing import Any

from asgd_lab.backends.build import Worker
from asgd_lab.backends.sim.accounts import COMPUTE, DOWN, IDLE, Account
from asgd_lab.backends.sim.clock import FAR, Alarm
from asgd_lab.backends.sim.exchange import Exchange, Stages
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.numerics import Computation
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.world import World
from asgd_lab.hardware.step_times import StepTimes
from asgd_lab.protocol.client import FETCH
from asgd_lab.protocol.effects import Train
from asgd_lab.protocol.messages import Ack, FetchRequest, Grant, Leave, PushRequest
from asgd_lab.tasks.base import Learner

NAN = math.nan


class SimWorker(Alarm):
    """One life of a worker, carried in virtual time; as an alarm, it trains."""

    __slots__ = (
        "_ahead",
        "_begun",
        "_computed",
        "_entry",
        "_job",
        "_late",
        "_paused_until",
        "_since",
        "_times",
        "_total",
        "_unsettled",
        "account",
        "alive",
        "client",
        "clock",
        "device",
        "fetch",
        "host",
        "number",
        "pushes",
        "replica",
        "rows",
        "training",
        "world",
    )

    def __init__(
        self, world: World, number: int, entry: Worker, times: StepTimes, account: Account, depth: int
    ) -> None:
        """`depth`: pushes that may be under way at once."""
        self.world, self.number = world, number
        self._entry, self._times, self.account = entry, times, account
        self.client, self.replica = entry.client, entry.replica
        machine, self.rows = world.machine, world.rows
        self.clock = machine.clock
        self.host, self.device = machine.processors(number)
        served = world.push_served, world.slice_served
        self.pushes = [Push(self, machine, *served) for _ in range(depth)]
        self.fetch = Fetch(self, machine, world.fetch_served, world.slice_served)
        self._unsettled: Exchange | None = None  # done, and not charged yet
        self._ahead: list[tuple[Stages, int]] = []  # what is to be charged before that, of overlapping exchanges
        self.alive, self.training = True, False
        self._begun = 0  # when the minibatches were begun
        self._total = 0
        self._computed: Computation | None = None
        self._job: list[Any] | None = None  # the minibatches' place on a device that is shared
        self._since = 0  # the worker's own time when it began to wait
        self._paused_until = self._late = 0

    @property
    def learner(self) -> Learner:
        """What trains its replica."""
        return self._entry.learner

    @property
    def minibatches(self) -> int:
        """Taken by now, those of a Train under way included: as many as its share that is over."""
        taken = self.replica.minibatches
        if self.training:
            share = max(0, self.clock.now - self._begun) / self._total
            taken += min(self.replica.steps, int(self.replica.steps * share))
        return taken

    def start(self) -> None:
        """Begin, or begin again, now."""
        self.account.charge(DOWN, self.clock.now)
        self.set(self.clock, self.clock.now, _start)

    def resume(self, local: int) -> None:
        """Go on at the worker's own time `local`, until it waits."""
        client = self.client
        while True:
            step = client.advance()
            kind = type(step)
            if kind is Train:
                self._train(local)
                return
            if kind is FetchRequest:
                fetch = self.fetch
                if client.awaits is not None:
                    if self._ahead or self._unsettled is fetch:
                        self._set_aside()
                    self._since = local
                    fetch.begin(step, local)  # type: ignore[arg-type]
                    return
                self._set_aside()
                fetch.begin(step, local)  # type: ignore[arg-type]
            elif kind is PushRequest:
                push = self.pushes[step.buffer]  # type: ignore[union-attr]
                if client.awaits is not None:
                    self._since = local
                    push.begin(step, local)  # type: ignore[arg-type]
                    return
                self._set_aside()
                push.begin(step, local)  # type: ignore[arg-type]
            elif step is None:
                self._set_aside()
                self._since = local
                return
            elif kind is Leave:
                self.set(self.clock, local, _leave)
                return
            elif kind is Grant or kind is Ack:
                exchange = self._exchange(step)  # type: ignore[arg-type]
                self._set_aside()
                local = max(local, exchange.done)
                self._take(exchange)

    def leave(self) -> None:
        """The program has ended."""
        self.alive = False
        self.world.leave(self.number)

    # ------------------------------------------------------------------ exchanges

    @property
    def awaits(self) -> Exchange | None:
        """What the program waits for."""
        which = self.client.awaits
        return None if which is None else self.fetch if which == FETCH else self.pushes[which]

    def _exchange(self, answer: Grant | Ack) -> Exchange:
        """The one that has had this answer."""
        return self.fetch if type(answer) is Grant else next(each for each in self.pushes if each.answer is answer)

    def finished(self, exchange: Exchange) -> None:
        """All that others have to do with it is over; it is done at its own `done`, now or later."""
        if self.rows.any and type(exchange) is Push:
            self.rows.push(exchange)
        if self.client.hear(exchange.answer):
            self._take(exchange)
            done, since = exchange.done, self._since
            self.resume(done if done > since else since)

    def _take(self, exchange: Exchange) -> None:
        """The program has it: charge the time it was waited for, and let a fetch take effect."""
        exchange.in_flight = False
        if self._unsettled is not None:
            self._unsettled.charge(self.account)
        self._unsettled = exchange
        if type(exchange) is Fetch:
            replica = self.replica
            if exchange.independent:
                replica.versions = tuple(exchange.versions[1:])
            if replica.granted:
                self.world.granted(replica)
            if self.rows.any:
                self.rows.fetch(exchange)

    def _set_aside(self) -> None:
        """The last exchange begins anew, or the next may be done before the clock gets to its end: charge it later."""
        if self._unsettled is not None:
            self._ahead.append((self._unsettled.stages(), self._unsettled.done))
            self._unsettled = None

    # ------------------------------------------------------------------ train

    def _train(self, local: int) -> None:
        steps, numerics = self.replica.steps, self.world.numerics
        if local < self._paused_until:
            local = self._paused_until
        self._begun = local
        self.training = True
        if numerics is not None:
            self._computed = numerics.begin(self._entry, self._times.ends_ns(steps, local))
            self._total = self._computed.ends_ns[-1]
        else:
            self._total = self._times.total_ns(steps, local)
        end = local + self._total
        if end > FAR:
            self.world.fail(f"worker {self.number} would train beyond {FAR / 1e9:.3g} s of virtual time, "
                            "where clocks end")  # fmt: skip
        if self.device is None:
            self.set(self.clock, end, _trained)
        elif local > self.clock.now:
            self.set(self.clock, local, _compute)
        else:
            self.compute()

    def pause(self, until: int) -> None:
        """Do nothing before then; what has been sent goes on, what is being trained takes that much longer."""
        if not self.alive:
            return
        self._paused_until = max(self._paused_until, until)
        if self.training:
            self._late += max(0, until - max(self._begun, self.clock.now))
            self._begun = max(self._begun, until) if self._begun > self.clock.now else self._begun
            self.then = _late

    def late(self) -> None:
        """The minibatches would have been over by now, had it not stood still."""
        late, self._late = self._late, 0
        self.set(self.clock, self.clock.now + late, _trained)

    def compute(self) -> None:
        """On a device or cores that others use as well."""
        assert self.device is not None
        self._job = self.device.sharing.take(self.device.one, self._total, self.trained)

    def trained(self) -> None:
        """The minibatches' time is over."""
        account, now = self.account, self.clock.now
        self.training, self._job = False, None
        if self._ahead:
            self._charge_ahead(now)
        if self._unsettled is not None:
            self._unsettled.charge(account)
            self._unsettled = None
        if now > account.until:  # inlined: Account.charge
            account.spent_ns[COMPUTE] += now - account.until
            account.until = now
        if self._computed is not None:
            self._learn(self._computed, now)
        else:
            self.client.trained(NAN, NAN)
        if self.rows.any:
            self.rows.train(self.replica, self._begun, now)
        self.resume(now)

    def _learn(self, computed: Computation, now: int) -> None:
        """Take the minibatches' losses and errors."""
        replica = self.replica
        losses, errors = computed.results()
        if self.rows.any:
            self.rows.minibatches(replica, self._begun, now, computed.ends_ns, losses, errors)
        self.client.trained(sum(losses), sum(errors))
        self.world.trained(replica, self._entry.learner)

    # ------------------------------------------------------------------ ends

    def stop(self, end: int, otherwise: int) -> None:
        """The run is over at `end`, wherever this worker is: charge the rest of its time, to `otherwise` if it does
        nothing.
        """
        account = self.account
        self._charge_ahead(end)
        if self._unsettled is not None:
            account.charge_stages(self._unsettled.stages(), min(end, self._unsettled.done))
        if not self.alive:
            account.charge(otherwise, end)
        elif self.training:
            account.charge(COMPUTE, end)
        elif (exchange := self.awaits) is not None:
            account.charge_stages(exchange.stages(), end)
        else:
            account.charge(otherwise, end)

    def _charge_ahead(self, end: int) -> None:
        for stages, done in self._ahead:
            self.account.charge_stages(stages, min(end, done))
        self._ahead.clear()

    def crash(self) -> None:
        """Gone: what it computed and has not pushed is lost, and so is what it has on its way."""
        now = self.clock.now
        self.stop(now, IDLE)
        self._unsettled = None
        self.alive = False
        self.cancel()
        if self._job is not None and self.device is not None:
            self.device.sharing.withdraw(self.device.one, self._job)
        if self.training and self._computed is not None:
            self._computed.forget()
        for exchange in (self.fetch, *self.pushes):
            if exchange.in_flight:
                exchange.lose()
            exchange.cut(now)
        self.client.close()


def _start(worker: SimWorker) -> None:
    worker.resume(worker.clock.now)


_compute, _trained, _late, _leave = SimWorker.compute, SimWorker.trained, SimWorker.late, SimWorker.leave
