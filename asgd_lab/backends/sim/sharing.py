"""Fair sharing: capacities are divided among their present takers, and divided again whenever one comes or goes.

The same arithmetic serves links, whose flows take bytes, and processors, whose jobs take nanoseconds of a core: a
*taker* draws an amount at a rate, through one or several capacities, and never faster than its cap. Rates are max-min
fair: all rates rise together; a taker that reaches its cap, or a used-up capacity, keeps its rate while the others rise
further (progressive filling: Bertsekas and Gallager, Data Networks, section 6.5.2).

Takers of the same capacities and cap are a *class* and have the same rate. Each class has a virtual clock that counts
the amount drawn by every member so far; a member that needs the amount a is done when the clock has advanced by a. So a
change of rates moves one clock per class instead of every taker, and the next taker to finish is the head of a heap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import ceil, inf
from typing import Any, NamedTuple

from asgd_lab.backends.sim.clock import Alarm, Clock


class Capacity:
    """A total rate per nanosecond."""

    __slots__ = ("classes", "name", "per_ns")

    def __init__(self, name: str, per_ns: float) -> None:
        self.name, self.per_ns = name, per_ns
        self.classes: list[Class] = []

    @property
    def used(self) -> float:
        """The amount drawn by its takers, up to the last change."""
        return sum(one.drawn for one in self.classes)

    @property
    def present_ns(self) -> int:
        """The integral of its number of takers, up to the last change."""
        return sum(one.present_ns for one in self.classes)

    @property
    def takers(self) -> int:
        """The present number of takers."""
        return sum(one.count for one in self.classes)


class Class:
    """Takers of the same capacities and the same cap."""

    __slots__ = ("cap", "capacities", "count", "drawn", "heap", "narrowest", "present_ns", "rate", "virtual")

    def __init__(self, capacities: Sequence[Capacity], cap: float) -> None:
        self.capacities, self.cap = tuple(capacities), cap
        self.narrowest = min((one.per_ns for one in capacities), default=inf)
        self.count = 0
        self.rate = 0.0  # per nanosecond, for each member
        self.virtual = 0.0  # the amount drawn by a member present all the time
        self.drawn = 0.0  # by all members together
        self.present_ns = 0
        self.heap: list[list[Any]] = []  # [virtual end, sequence, callback or None if withdrawn]
        for capacity in self.capacities:
            capacity.classes.append(self)


class Sharing(Alarm):
    """Capacities connected by common takers, directly or through others; classes are added before its first use."""

    __slots__ = ("_alarm_at", "_classes", "_clock", "_known", "_only", "_sequence", "_since")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[tuple[Capacity, ...], float], Class] = {}
        self._classes: dict[Class, None] = {}  # classes with members
        self._only: Class | None = None  # the class, if there is only one: its rate needs no filling
        self._since = 0  # the time of the last move of the virtual clocks
        self._alarm_at = -1
        self._sequence = 0

    def add(self, capacities: Sequence[Capacity], cap: float = inf) -> Class:
        """The class of the takers of these capacities with this cap; at least one of the two must be finite."""
        known = self._known.get((tuple(capacities), cap))
        if known is None:
            known = self._known[tuple(capacities), cap] = Class(capacities, cap)
            self._only = known if len(self._known) == 1 else None
            self._classes = {known: None} if self._only is not None else {}
        return known

    def take(self, one: Class, amount: float, done: Callable[[], object]) -> list[Any]:
        """Call `done` when a new member of the class has drawn `amount`; return an entry for `withdraw`."""
        self._sequence = sequence = self._sequence + 1
        if one is not self._only:
            self.move()
            entry = [one.virtual + amount, sequence, done]
            heappush(one.heap, entry)
            one.count += 1
            self._classes[one] = None
            self._divide()
            self._set_alarm()
            return entry
        now, count, virtual = self._clock.now, one.count, one.virtual
        passed = now - self._since
        if passed:  # inlined: `move`
            self._since = now
            if count:
                drawn = one.rate * passed
                one.virtual = virtual = virtual + drawn
                one.drawn += drawn * count
                one.present_ns += count * passed
        end = virtual + amount
        entry, heap = [end, sequence, done], one.heap
        heappush(heap, entry)
        one.count = count = count + 1
        rate = one.narrowest / count
        one.rate = rate = rate if rate < one.cap else one.cap
        # An alarm for an earlier time stays: it will find no taker done, and set the next alarm. So a new taker, which
        # delays all others, needs no new alarm. With several classes some may become faster: a flow that is slowed
        # here leaves capacity elsewhere.
        if heap[0] is entry:
            left = ceil((end - virtual) / rate - 0.5)
            due = now + left if left > 0 else now
            if self._alarm_at < now or due < self._alarm_at:
                self._alarm_at = due
                self.set(self._clock, due, _RING_ALONE)
        return entry

    def withdraw(self, one: Class, entry: list[Any]) -> None:
        """Remove a taker before it is done."""
        self.move()
        entry[2] = None
        one.count -= 1
        if not one.count:
            self._rest(one)
        self._divide()
        self._set_alarm()

    def move(self) -> None:
        """Bring the virtual clocks and counters up to now."""
        now = self._clock.now
        passed = now - self._since
        if passed:
            self._since = now
            for one in self._classes:
                count = one.count
                if count:
                    drawn = one.rate * passed
                    one.virtual += drawn
                    one.drawn += drawn * count
                    one.present_ns += count * passed

    def _rest(self, one: Class) -> None:
        """Reset a class without members."""
        one.virtual = 0.0  # keep the clock's numbers small, and so exact
        one.heap.clear()
        if one is not self._only:
            del self._classes[one]

    def _divide(self) -> None:
        """Set the rates for the present takers."""
        one = self._only
        if one is None:
            fill(list(self._classes))
        elif one.count:
            rate = one.narrowest / one.count
            one.rate = rate if rate < one.cap else one.cap

    def _set_alarm(self) -> None:
        """Set an alarm for the first taker to finish, unless one is set for then or earlier."""
        due = -1
        for one in self._classes:
            heap = one.heap
            while heap and heap[0][2] is None:
                heappop(heap)
            if heap:
                end = self._since + ceil((heap[0][0] - one.virtual) / one.rate - 0.5)
                if due < 0 or end < due:
                    due = end
        if due >= 0:
            if due < self._since:
                due = self._since
            if self._alarm_at < self._since or due < self._alarm_at:
                self._alarm_at = due
                self.set(self._clock, due, _RING if self._only is None else _RING_ALONE)

    def ring(self) -> None:
        """Remove all takers that are done, and call their functions."""
        if self._clock.now != self._alarm_at:
            return
        self._alarm_at = -1
        self.move()
        finished: list[list[Any]] = []
        for one in list(self._classes):
            heap, virtual = one.heap, one.virtual
            limit = virtual + 0.5 * one.rate + 1e-12 * virtual
            while heap and heap[0][0] <= limit:
                entry = heappop(heap)
                if entry[2] is not None:
                    one.count -= 1
                    finished.append(entry)
            if not one.count:
                self._rest(one)
        if finished:
            self._divide()
            if len(finished) > 1:
                finished.sort(key=_sequence)
        self._set_alarm()
        for entry in finished:
            entry[2]()

    def ring_alone(self) -> None:
        """As `ring`, for one class, in one piece: every simulated transfer passes here."""
        now = self._clock.now
        if now != self._alarm_at:
            return
        one: Class = self._only  # type: ignore[assignment]
        rate, count, virtual, heap = one.rate, one.count, one.virtual, one.heap
        passed = now - self._since
        if passed:  # inlined: `move`
            self._since = now
            drawn = rate * passed
            one.virtual = virtual = virtual + drawn
            one.drawn += drawn * count
            one.present_ns += count * passed
        limit = virtual + 0.5 * rate + 1e-12 * virtual
        finished = []
        while heap:
            end, _, done = heap[0]
            if done is not None:
                if end > limit:
                    break
                finished.append(done)
            heappop(heap)
        if finished:
            one.count = count = count - len(finished)
        if count:
            rate = one.narrowest / count
            one.rate = rate = rate if rate < one.cap else one.cap
            left = ceil((end - virtual) / rate - 0.5)
            self._alarm_at = due = now + left if left > 0 else now
            self.set(self._clock, due, _RING_ALONE)
        else:
            self._alarm_at = -1
            one.virtual = 0.0  # keep the clock's numbers small, and so exact
        for done in finished:
            done()


class Processor(NamedTuple):
    """A shared device or shared cores, and the class of their takers."""

    sharing: Sharing
    one: Class


def fill(classes: Sequence[Class]) -> None:
    """Set the max-min fair rate of every class; each has at least one member.

    The common level of the rates rises from one event to the next: a capacity is used up, or a class reaches its cap.
    The level at which a capacity is used up only grows meanwhile, so the least entry of a heap of levels is valid once
    it is recomputed.
    """
    free: dict[Capacity, float] = {}
    users: dict[Capacity, int] = {}
    members: dict[Capacity, list[Class]] = {}
    for one in classes:
        for capacity in one.capacities:
            if capacity in users:
                users[capacity] += one.count
                members[capacity].append(one)
            else:
                free[capacity], users[capacity], members[capacity] = capacity.per_ns, one.count, [one]
    levels = [(free[capacity] / count, index, capacity) for index, (capacity, count) in enumerate(users.items())]
    heapify(levels)
    capped = sorted((one for one in classes if one.cap < inf), key=_cap, reverse=True)
    rising = dict.fromkeys(classes)

    def settle(one: Class, rate: float) -> None:
        one.rate = rate
        del rising[one]
        for capacity in one.capacities:
            free[capacity] = max(0.0, free[capacity] - rate * one.count)
            users[capacity] -= one.count

    while rising:
        while capped and capped[-1] not in rising:
            capped.pop()
        level, index, full = levels[0] if levels else (inf, 0, None)
        if capped and capped[-1].cap <= level:
            one = capped.pop()
            settle(one, one.cap)
            continue
        assert full is not None, "a class has a capacity or a cap"
        heappop(levels)
        if not users[full]:
            continue
        now = free[full] / users[full]
        if now > level:
            heappush(levels, (now, index, full))
            continue
        for one in members[full]:
            if one in rising:
                settle(one, now)


def _cap(one: Class) -> float:
    return one.cap


def _sequence(entry: list[Any]) -> int:
    sequence: int = entry[1]
    return sequence


_RING, _RING_ALONE = Sharing.ring, Sharing.ring_alone
