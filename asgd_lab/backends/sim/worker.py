"""One life of a worker in virtual time: carries the messages of its client, and charges its time.

A worker's own time may be ahead of the clock: steps without shared resources (its costs, the way of an answer, the
start of its next minibatches) are arithmetic, and only steps with shared resources wait on the clock.
"""

from __future__ import annotations

from collections.abc import Callable

from asgd_lab.backends.build import Worker
from asgd_lab.backends.sim.accounts import COMPUTE, DOWN, IDLE, Account
from asgd_lab.backends.sim.clock import Alarm, Timer
from asgd_lab.backends.sim.exchange import Exchange, Stages
from asgd_lab.backends.sim.fetch import Fetch, PartFetch
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.training import NAN, Training
from asgd_lab.backends.sim.world import World
from asgd_lab.hardware.step_times import StepTimes
from asgd_lab.protocol.effects import FETCH, Train, exchange_of
from asgd_lab.protocol.messages import ALL, NO_PART, NOWHERE, Ack, FetchRequest, Grant, Leave, PushRequest, Stop
from asgd_lab.tasks.base import Learner


class Exchanges(dict[int, Exchange]):
    """Exchanges by their number in the client; that of a lease alone is made when a program first asks for one."""

    def __init__(self, lease: Callable[[], Fetch]) -> None:
        self._lease = lease

    def __missing__(self, which: int) -> Exchange:
        self[which] = made = self._lease()
        return made


class SimWorker(Alarm):
    """One life of a worker, carried in virtual time; as an alarm, it begins and ends."""

    __slots__ = (
        "_ahead",
        "_entry",
        "_looks_at_fetches",
        "_records",
        "_since",
        "_stops",
        "_unsettled",
        "account",
        "alive",
        "client",
        "clock",
        "exchanges",
        "fetch",
        "host",
        "number",
        "push",
        "replica",
        "rows",
        "training",
        "world",
    )

    def __init__(
        self, world: World, number: int, entry: Worker, times: StepTimes, account: Account, depth: int
    ) -> None:
        """`depth`: pushes that may be in flight at once."""
        self.world, self.number = world, number
        self._entry, self.account = entry, account
        self.client, self.replica = entry.client, entry.replica
        machine, self.rows = world.machine, world.rows
        self.clock = machine.clock
        self.host, device = machine.processors(number)
        self.training = Training(world, entry, times, account, device, self)
        self.exchanges = self._made(depth)
        """The exchanges that may be under way together, by their number in the client."""
        first = 0 if self.replica.parts else ALL
        self.fetch, self.push = self.exchanges[exchange_of(True, first)], self.exchanges[exchange_of(False, first)]
        self._unsettled: Exchange | None = None  # done, and not charged yet
        self._ahead: list[tuple[Stages, int]] = []  # stages of overlapping exchanges, to charge before it
        self.alive = True
        self._since = 0  # the worker's own time when it began to wait for an exchange that had begun before
        self._records, self._stops = self.rows.any, world.stops
        self._looks_at_fetches = self.replica.vectors is not None or self._records

    def _made(self, depth: int) -> Exchanges:
        """The exchanges of the vector, or those of its parts."""
        machine, served = self.world.machine, self.world.served
        parts = [(part, place.size_bytes) for part, place in enumerate(self.replica.parts)]
        found = Exchanges(lambda: Fetch(self, machine, served.fetch, NO_PART))
        fetches: list[Fetch] = []
        pushes: list[list[Push]] = []  # of each part, by buffer
        for part, size_bytes in parts or [(ALL, 0)]:
            pushes.append([Push(self, machine, served.push, part, size_bytes) for _ in range(depth)])
            fetches.append((PartFetch if parts else Fetch)(self, machine, served.fetch, part, size_bytes))
            found[exchange_of(True, part)] = fetch = fetches[-1]
            found |= {exchange_of(False, part, buffer): push for buffer, push in enumerate(pushes[-1])}
            if isinstance(fetch, PartFetch):
                fetch.pushes = () if machine.apart else pushes[-1]
        if machine.apart:
            for together in (fetches, *zip(*pushes, strict=True)):
                for each in together:
                    each.parts = together
        return found

    @property
    def learner(self) -> Learner:
        """The learner of its replica."""
        return self._entry.learner

    @property
    def minibatches(self) -> int:
        """The minibatches taken by now, including those of the current Train."""
        return self.replica.minibatches + self.training.taken

    def start(self) -> None:
        """Begin this life now."""
        self.account.charge(DOWN, self.clock.now)
        self.set(self.clock, self.clock.now, _start)

    def resume(self, local: int) -> None:
        """Continue at the worker's own time `local`, until it waits."""
        client = self.client
        while True:
            step = client.advance()
            kind = type(step)
            if kind is Train:
                self.training.begin(local)
                return
            if kind is FetchRequest or kind is PushRequest:
                if self._stops and step.stopped:  # type: ignore[union-attr]
                    self._void(step)  # type: ignore[arg-type]
                which = client.awaits
                if which is None:
                    self._set_aside()
                    self.exchanges[client.key(step)].begin(step, local)  # type: ignore[arg-type]
                    continue
                # Most workers have these two exchanges: a dictionary would be more memory to look at.
                exchange = self.fetch if which == FETCH else self.push if which == 0 else self.exchanges[which]
                if self._ahead or self._unsettled is exchange:
                    self._set_aside()
                exchange.begin(step, local)
                return
            if step is None:
                self._set_aside()
                self._since = local
                return
            if kind is Leave:
                self.set(self.clock, local, _leave)
                return
            if kind is Grant or kind is Ack:
                exchange = self.exchanges[client.taken]
                self._set_aside()
                local = max(local, exchange.done)
                self._take(exchange)

    def leave(self) -> None:
        """The program has ended."""
        self.alive = False
        self.world.leave(Leave(self.number, self.replica.incarnation))

    # ------------------------------------------------------------------ exchanges

    @property
    def awaits(self) -> Exchange | None:
        """The exchange that the program waits for."""
        which = self.client.awaits
        return None if which is None else self.exchanges[which]

    def finished(self, exchange: Exchange) -> None:
        """All that others have to do with it is over; it is done at its own `done`, now or later."""
        if self._records and type(exchange) is Push:
            self.rows.push(exchange)
        client, awaits = self.client, self.client.awaits
        if awaits is not None and exchange is (
            self.fetch if awaits == FETCH else self.push if awaits == 0 else self.exchanges[awaits]
        ):
            client.take(awaits, exchange.answer)
            exchange.in_flight = False  # inlined: `_take`
            unsettled, self._unsettled = self._unsettled, exchange
            if unsettled is not None:
                unsettled.charge(self.account)
            if self._looks_at_fetches and type(exchange) is not Push:
                self._fetched(exchange)  # type: ignore[arg-type]
            done, since = exchange.done, self._since
            self.resume(done if done > since else since)
        else:
            client.hear(exchange.answer)

    def _take(self, exchange: Exchange) -> None:
        """The program takes the answer: charge the time of the wait, and let a fetch take effect."""
        exchange.in_flight = False
        if self._unsettled is not None:
            self._unsettled.charge(self.account)
        self._unsettled = exchange
        if self._looks_at_fetches and type(exchange) is not Push:
            self._fetched(exchange)  # type: ignore[arg-type]

    def _fetched(self, fetch: Fetch) -> None:
        """Give the replica the parameters that it was granted."""
        replica = self.replica
        if fetch.answer.slot != NOWHERE:
            self.world.granted(replica, fetch.answer)
        if self.rows.any:
            self.rows.fetch(fetch)

    def _set_aside(self) -> None:
        """Copy the stages of the last exchange, to charge them later: its object is about to be reused."""
        if self._unsettled is not None:
            self._ahead.append((self._unsettled.stages(), self._unsettled.done))
            self._unsettled = None

    # ------------------------------------------------------------------ train

    def trained(self, now: int) -> None:
        """The time of a Train is over: learn, and continue."""
        account = self.account
        if self._ahead:
            self._charge_ahead(now)
        if self._unsettled is not None:
            self._unsettled.charge(account)
            self._unsettled = None
        if now > account.until:  # inlined: Account.charge
            account.spent_ns[COMPUTE] += now - account.until
            account.until = now
        if self.training.bare:
            self.replica.trained(NAN, NAN)  # and not the client, which has to look for stops
        else:
            self.training.learn(now)
        self.resume(now)

    def pause(self, until: int) -> None:
        """Pause until then; messages in flight are not affected."""
        if self.alive:
            self.training.pause(until)

    def send_stop(self, stop: Stop) -> None:
        """The server has stopped a lease; the worker hears it a latency later."""
        if stop.incarnation == self.replica.incarnation:
            Timer(self.clock, self.fetch.route.latency_ns, lambda: self._hear_stop(stop))

    def _void(self, request: FetchRequest | PushRequest) -> None:
        """A request reports wasted minibatches; a push may have newer ones, of another lease."""
        pushed = request.steps if type(request) is PushRequest else 0
        self.training.void(request.wasted, max(pushed, self.replica.unpushed))

    def _hear_stop(self, stop: Stop) -> None:
        now, training = self.clock.now, self.training
        if now < training.paused_until:
            Timer(self.clock, training.paused_until - now, lambda: self._hear_stop(stop))
        elif self.alive:
            self.client.hear(stop)
            if self.client.stopping and training.under_way:
                self.training = training.stop()

    # ------------------------------------------------------------------ ends

    def stop(self, end: int, otherwise: int) -> None:
        """The run is over at `end`: charge the rest of this worker's time, to `otherwise` if it is idle."""
        account = self.account
        self.training.void(self.client.unreported, self.replica.unpushed)
        self._charge_ahead(end)
        if self._unsettled is not None:
            account.charge_stages(self._unsettled.stages(), min(end, self._unsettled.done))
        if not self.alive:
            account.charge(otherwise, end)
        elif self.training.under_way:
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
        """Crash: unpushed work and messages in flight are lost."""
        now = self.clock.now
        self.stop(now, IDLE)
        self._unsettled = None
        self.alive = False
        self.cancel()
        self.training.crash()
        for exchange in self.exchanges.values():
            if exchange.in_flight:
                exchange.lose()
            exchange.cut(now)
        self.client.close()


def _start(worker: SimWorker) -> None:
    worker.resume(worker.clock.now)


_leave = SimWorker.leave
