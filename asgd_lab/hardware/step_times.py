"""Times of minibatches: the random times of one worker's device, its speed, and its slow phases.

A worker's times come from random streams of its own. So they are the same in a simulation and on an emulated device,
for any size of the drawn blocks, and in every scenario of the same seed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asgd_lab import streams
from asgd_lab.configuration import MOST_S
from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.scenario.hardware import Compute, Hardware, SlowPhases
from asgd_lab.scenario.running import Faults, Slow

BLOCK = 4096  # step times drawn at once, at most
BLOCKS = 2**20  # over all workers
_KEPT = 64  # past phases
_MOST_S = 4e9  # sum of a block: the nanoseconds of two blocks fit 64 bits
_MOST_PHASES = 10_000  # within a minibatch: each is drawn, and so many of them are but a slower device


def mean_step_s(compute: Compute, stated_step_s: float | None = None) -> float:
    """Mean seconds of a minibatch; `stated_step_s`, from the task, applies where the hardware states none."""
    if compute.samples_s is not None:
        return float(np.mean(compute.samples_s))
    step_s = compute.step_s if compute.step_s is not None else stated_step_s
    if step_s is None:
        raise ScenarioError.at("hardware.compute.step_s", "this backend needs the seconds that a minibatch takes")
    return step_s


def group_of(hardware: Hardware, workers: int) -> list[int]:
    """Each worker's group as an index into `groups`; -1 without groups."""
    if not hardware.groups:
        return [-1] * workers
    rest = workers - sum(group.workers or 0 for group in hardware.groups)
    sizes = [rest if group.workers is None else group.workers for group in hardware.groups]
    return [index for index, size in enumerate(sizes) for _ in range(size)]


def speed_of(hardware: Hardware, workers: int) -> list[float]:
    """Each worker's speed as a factor on that of `compute`."""
    own = [hardware.speeds[worker % len(hardware.speeds)] for worker in range(workers)]
    groups = group_of(hardware, workers)
    return [
        speed * (1.0 if group < 0 else hardware.groups[group].speed) for speed, group in zip(own, groups, strict=True)
    ]


class StepTimes:
    """One worker's step times, in order: each call consumes the times of the minibatches that it returns."""

    __slots__ = ("_block", "_compute", "_constant_ns", "_drawn", "_next", "_phases", "_random", "_scale_s",
                 "_scheduled", "_steps", "_sums")  # fmt: skip

    def __init__(
        self,
        compute: Compute,
        seed: int,
        worker: int,
        stated_step_s: float | None = None,
        speed: float = 1.0,
        slow_phases: SlowPhases | None = None,
        block: int = BLOCK,
        slows: Sequence[Slow] = (),
    ) -> None:
        self._compute, self._block = compute, block
        mean_s = mean_step_s(compute, stated_step_s) / speed
        if mean_s > MOST_S:
            message = f"a minibatch takes {mean_s:g} s at speed {speed:g}; it may take {MOST_S:.0g} s"
            raise ScenarioError.at("hardware.speeds", f"{message}; give a higher speed, or a smaller step_s")
        self._scale_s = 1.0 / speed if compute.samples_s is not None else mean_s
        self._constant_ns = max(1, nanoseconds(mean_s)) if compute.distribution == "constant" else None
        self._random = streams.generator(seed, worker, "compute")
        self._phases = None
        if slow_phases is not None:
            cycle_s = slow_phases.every_s + slow_phases.length_s
            if mean_s > _MOST_PHASES * cycle_s / slow_phases.factor:
                meets = f"a minibatch of {mean_s:g} s may meet over {_MOST_PHASES:,} phases of {cycle_s:g} s each"
                raise ScenarioError.at("hardware.slow_phases", f"{meets}; give longer phases, or speeds")
            self._phases = Phases(slow_phases, seed, worker)
        self._scheduled = Scheduled(slows) if slows else None
        self._drawn = np.empty(0, np.int64)
        self._next = 0
        self._sums: list[
            int
        ] = []  # totals of the coming rounds if they have `_steps` minibatches; the next one is last
        self._steps = 0

    @classmethod
    def all(
        cls, hardware: Hardware, seed: int, workers: int, stated_step_s: float | None = None,
        faults: Faults | None = None,
    ) -> list[StepTimes]:  # fmt: skip
        """The step times of every worker; the number of times drawn ahead is bounded for all together."""
        slows: list[list[Slow]] = [[] for _ in range(workers)]
        for each in faults.schedule if faults is not None else ():
            if isinstance(each, Slow):
                slows[each.worker].append(each)
        block = max(16, min(BLOCK, BLOCKS // workers))
        speeds = speed_of(hardware, workers)
        return [
            cls(hardware.compute, seed, worker, stated_step_s, speed, hardware.slow_phases, block, slows[worker])
            for worker, speed in enumerate(speeds)
        ]

    def total_ns(self, steps: int, begun: int = 0) -> int:
        """Nanoseconds of the next `steps` minibatches together, if they begin at `begun` on the run's clock."""
        if self._constant_ns is not None:
            total = steps * self._constant_ns
        elif steps == self._steps and self._sums:
            self._next += steps
            total = self._sums.pop()
        else:
            total = self._first_of_block(steps)
        if self._phases is not None:
            total = self._phases.stretched_ns(begun, total)
        return total if self._scheduled is None else self._scheduled.stretched_ns(begun, total)

    def ends_ns(self, steps: int, begun: int = 0) -> list[int]:
        """The end of each of the next `steps` minibatches, in nanoseconds from their common start at `begun`."""
        if self._constant_ns is not None:
            ends = list(range(self._constant_ns, (steps + 1) * self._constant_ns, self._constant_ns))
        else:
            self._sums = []
            ends = np.cumsum(self._take(steps)).tolist()
        for slowness in (self._phases, self._scheduled):
            if slowness is not None:
                ends = [slowness.stretched_ns(begun, end) for end in ends]
        return ends

    def put_back(self, steps: int) -> None:
        """The last `steps` minibatches that were asked for are not taken: their times are those of the next."""
        if self._constant_ns is None:
            self._next -= steps
            self._sums = []

    def draw_ahead(self) -> None:
        """Draw the first block now, so that an emulated device does not draw it while its clock runs."""
        if self._constant_ns is None:
            self._drawn = self._draw(self._block)

    def _first_of_block(self, steps: int) -> int:
        """The total of one round; it also sums up further rounds of as many steps that are drawn already."""
        self._take(steps)
        start = self._next - steps
        rounds = (len(self._drawn) - start) // steps
        drawn = self._drawn[start : start + rounds * steps]
        self._sums = drawn.reshape(rounds, steps).sum(axis=1)[::-1].tolist()
        self._steps = steps
        return self._sums.pop()

    def _take(self, steps: int) -> NDArray[np.int64]:
        if self._next + steps > len(self._drawn):
            rest, drawn = self._drawn[self._next :], self._draw(max(self._block, steps))
            self._drawn = np.concatenate([rest, drawn]) if len(rest) else drawn
            self._next = 0
        taken = self._drawn[self._next : self._next + steps]
        self._next += steps
        return taken

    def _draw(self, count: int) -> NDArray[np.int64]:
        compute, random, scale_s = self._compute, self._random, self._scale_s
        if compute.distribution == "exponential":
            seconds = random.exponential(scale_s, count)
        elif compute.distribution == "lognormal":
            variance = math.log1p(compute.cv**2)
            seconds = random.lognormal(math.log(scale_s) - variance / 2, math.sqrt(variance), count)
        elif compute.distribution == "gamma":
            shape = compute.cv**-2
            seconds = random.gamma(shape, scale_s / shape, count)
        else:
            assert compute.samples_s is not None
            seconds = random.choice(np.asarray(compute.samples_s), count) * scale_s
        if not seconds.sum() < _MOST_S:
            message = f"{count} minibatches take {seconds.sum():.3g} s; those drawn together may take {_MOST_S:.0g} s"
            raise ScenarioError.at("hardware.compute", f"{message}; lower step_s or cv")
        return np.maximum(np.rint(seconds * 1e9).astype(np.int64), 1)


class Scheduled:
    """Slowness of one worker's device at stated times, from the scenario's faults; overlapping factors multiply."""

    __slots__ = ("_changes", "_factors")

    def __init__(self, slows: Sequence[Slow]) -> None:
        spans = [(nanoseconds(each.at_s), nanoseconds(each.until_s), each.factor) for each in slows]
        self._changes = sorted({0, *(at for at, _, _ in spans), *(until for _, until, _ in spans)})
        self._factors = [
            math.prod(factor for at, until, factor in spans if at <= change < until) for change in self._changes
        ]

    def stretched_ns(self, begun: int, work_ns: int) -> int:
        """The duration, from `begun` on, of work that takes `work_ns` without faults."""
        now, left = begun, float(work_ns)
        place = bisect_right(self._changes, begun) - 1
        while True:
            factor = self._factors[place]
            until = self._changes[place + 1] if place + 1 < len(self._changes) else None
            if until is None or left * factor <= until - now:
                return now + round(left * factor) - begun
            left -= (until - now) / factor
            now, place = until, place + 1


class Phases:
    """Random slow phases of one worker's device: fast and slow spans alternate, of exponential lengths, fast first."""

    __slots__ = ("_changes", "_factor", "_means_s", "_random")

    def __init__(self, config: SlowPhases, seed: int, worker: int) -> None:
        self._factor = config.factor
        self._means_s = (config.every_s, config.length_s)
        self._random = streams.generator(seed, worker, "phases")
        self._changes: list[int] = [0]  # the start of each phase; even phases are fast

    def stretched_ns(self, begun: int, work_ns: int) -> int:
        """The duration, from `begun` on, of work that takes `work_ns` on a fast device."""
        phase = self._phase_at(begun)
        now, left = begun, float(work_ns)
        while True:
            until = self._begin_of(phase + 1)
            slowness = self._factor if phase % 2 else 1.0
            if left * slowness <= until - now:
                return now + round(left * slowness) - begun
            left -= (until - now) / slowness
            now, phase = until, phase + 1

    def _phase_at(self, time_ns: int) -> int:
        while self._changes[-1] <= time_ns:
            self._begin_of(len(self._changes))
        phase = bisect_right(self._changes, time_ns) - 1
        if phase > _KEPT:  # times do not decrease, so early phases can go
            past = phase - phase % 2
            del self._changes[:past]
            phase -= past
        return phase

    def _begin_of(self, phase: int) -> int:
        while len(self._changes) <= phase:
            mean_s = self._means_s[(len(self._changes) - 1) % 2]
            self._changes.append(self._changes[-1] + max(1, nanoseconds(self._random.exponential(mean_s))))
        return self._changes[phase]
