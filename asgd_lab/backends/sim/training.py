"""One worker's minibatches in virtual time: their durations, pauses and stops.

The mathematics of a Train is done when its time is over; it depends on no event since the fetch. A stopped worker
finishes its current minibatch; the times drawn for the others serve its next minibatches.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Protocol

from asgd_lab.backends.build import Worker
from asgd_lab.backends.sim.accounts import Account
from asgd_lab.backends.sim.clock import FAR, Alarm
from asgd_lab.backends.sim.numerics import Computation
from asgd_lab.backends.sim.sharing import Processor
from asgd_lab.backends.sim.world import World
from asgd_lab.hardware.step_times import StepTimes

NAN = math.nan


class Owner(Protocol):
    """The worker that trains."""

    def trained(self, now: int) -> None:
        """The time of a Train is over."""


class Training(Alarm):
    """Runs one Train after the other; at the end of each it calls its owner, which calls `learn`. As an alarm, it
    waits for that end.
    """

    __slots__ = (
        "_account",
        "_client",
        "_clock",
        "_computed",
        "_device",
        "_ends_ns",
        "_entry",
        "_is_timed_only",
        "_job",
        "_late",
        "_owner",
        "_paused_ns",
        "_replica",
        "_rows",
        "_taken",
        "_times",
        "_unpushed",
        "_world",
        "bare",
        "begun",
        "paused_until",
        "total_ns",
        "under_way",
    )

    def __init__(
        self, world: World, entry: Worker, times: StepTimes, account: Account, device: Processor | None,
        owner: Owner,
    ) -> None:  # fmt: skip
        """`device`: a shared device for training, or None."""
        self._world, self._entry, self._times, self._account = world, entry, times, account
        self._client, self._replica, self._rows = entry.client, entry.replica, world.rows
        self._device, self._owner, self._clock = device, owner, world.machine.clock
        self._is_timed_only = world.numerics is None and not world.stops
        self.bare = self._is_timed_only and not world.rows.any  # is there nothing to learn but that it is over?
        self.under_way = False
        self.begun = 0
        self.total_ns = 0
        self.paused_until = 0
        self._late = 0  # the delay of its end after its alarm
        self._paused_ns = 0  # pauses of this Train so far
        self._job: list[Any] | None = None  # its entry on a shared device
        self._ends_ns: list[int] = []  # of its minibatches, from the beginning, if they are needed
        self._computed: Computation | None = None
        self._taken: int | None = None  # minibatches, of a Train that is stopped
        # From the last Train back: minibatches not pushed to all parts at its end, and their nanoseconds; kept if there
        # are stops.
        self._unpushed: list[tuple[int, int]] = []

    @property
    def taken(self) -> int:
        """The minibatches of this Train taken by now, in proportion to its time."""
        if not self.under_way:
            return 0
        steps = self._replica.steps
        return min(steps, int(steps * (max(0, self._clock.now - self.begun) / self.total_ns)))

    def begin(self, local: int) -> None:
        """Train from the worker's own time `local`."""
        if local < self.paused_until:
            local = self.paused_until
        self.begun = local
        self.under_way = True
        steps = self._replica.steps
        self.total_ns = total_ns = (
            self._times.total_ns(steps, local) if self._is_timed_only else self._plan(steps, local)
        )
        end = local + total_ns
        if end > FAR:
            self._world.fail(f"worker {self._replica.worker} would train beyond {FAR / 1e9:.3g} s of virtual time, "
                             "where clocks end")  # fmt: skip
        if self._device is None:
            self.set(self._clock, end, _end)
        elif local > self._clock.now:
            self.set(self._clock, local, _compute)
        else:
            self.compute()

    def _plan(self, steps: int, local: int) -> int:
        """Note the end of each minibatch; return the nanoseconds of all."""
        self._ends_ns = self._times.ends_ns(steps, local)
        self._paused_ns, self._taken = 0, None
        if self._world.numerics is not None:
            self._computed = self._world.numerics.begin(self._entry, self._ends_ns)
        return self._ends_ns[-1]

    def compute(self) -> None:
        """Compute on a shared device or shared cores."""
        assert self._device is not None
        self._job = self._device.sharing.take(self._device.one, self.total_ns, self.end)

    def end(self) -> None:
        """The time of the minibatches is over."""
        self.under_way, self._job = False, None
        self._owner.trained(self._clock.now)

    def learn(self, now: int) -> None:
        """Tell the client the results of a Train whose time is over, and write its rows."""
        replica, taken = self._replica, self._taken
        steps = replica.steps if taken is None else taken
        if self._world.stops:
            left = replica.unpushed + self._client.unreported
            self._unpushed = [(steps, now - self.begun), *self._newest(left)]
        if self._computed is not None:
            computed, self._computed = self._computed, None
            losses, errors = computed.results(steps)
            if self._rows.any:
                self._rows.minibatches(replica, self.begun, now, computed.ends_ns, losses, errors)
            self._client.trained(sum(losses), sum(errors), taken)
            self._world.trained(replica, self._entry.learner)
        else:
            self._client.trained(NAN, NAN, taken)
        if self._rows.any and steps:
            self._rows.train(replica, steps, self.begun, now)

    def void(self, wasted: int, since: int) -> None:
        """Count the time of `wasted` minibatches as wasted: the last ones before the `since` newest."""
        newest = list(self._newest(since))
        both_ns = sum(lasted_ns for _, lasted_ns in self._newest(since + wasted))
        self._account.waste(both_ns - sum(lasted_ns for _, lasted_ns in newest))
        self._unpushed = newest

    def _newest(self, left: int) -> Iterator[tuple[int, int]]:
        """The noted Trains without all but so many of the newest minibatches: others have been pushed to all parts."""
        for taken, lasted_ns in self._unpushed:
            if left > 0:
                yield (taken, lasted_ns) if taken <= left else (left, lasted_ns * left // taken)
            left -= taken

    # ------------------------------------------------------------------ pauses, stops and crashes

    def pause(self, until: int) -> None:
        """Pause until then: the current Train takes that much longer."""
        before = self.paused_until  # pauses may overlap
        self.paused_until = max(before, until)
        if self.under_way:
            now = self._clock.now
            late = max(0, until - max(self.begun, now, before))
            self._late += late
            if self.begun > now:
                self.begun = max(self.begun, until)
            else:
                self._paused_ns += late
            self.then = _end_late

    def end_late(self) -> None:
        """The minibatches would have ended now without the pause."""
        late, self._late = self._late, 0
        self.set(self._clock, self._clock.now + late, _end)

    def stop(self) -> Training:
        """End after the current minibatch; return the Training that continues: a copy, since alarms cannot be reset."""
        now, ends_ns = self._clock.now, self._ends_ns
        if self._job is None:
            trained_ns = now - self.begun - self._paused_ns
        else:
            assert self._device is not None
            sharing, one = self._device
            sharing.move()
            trained_ns = round(self.total_ns - (self._job[0] - one.virtual))
        taken = 0 if trained_ns < 0 else bisect_left(ends_ns, trained_ns) + 1
        if taken >= len(ends_ns):
            return self
        self._times.put_back(len(ends_ns) - taken)
        self._taken = taken
        left_ns = (ends_ns[taken - 1] if taken else 0) - trained_ns
        if self._job is not None:
            sharing.withdraw(one, self._job)
            self._job = sharing.take(one, left_ns, self.end)
            return self
        self._late = 0
        other = copy.copy(self)
        self.cancel()
        other.set(self._clock, now + left_ns, _end)
        return other

    def crash(self) -> None:
        """Its worker is gone."""
        self.cancel()
        if self._job is not None and self._device is not None:
            self._device.sharing.withdraw(self._device.one, self._job)
        if self.under_way and self._computed is not None:
            self._computed.forget()


_compute, _end, _end_late = Training.compute, Training.end, Training.end_late
