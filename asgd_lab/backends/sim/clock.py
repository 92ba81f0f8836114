"""The virtual clock: an integer number of nanoseconds, and the heap of alarms.

Alarms for the same time ring in the order in which they were set, like simpy's events; a test compares the two. An
alarm is reused for one wait after the other, so waiting allocates nothing. No other file touches the heap.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

from simpy.core import StopSimulation

from asgd_lab import interrupts

__all__ = ["FAR", "Alarm", "Clock", "StopSimulation", "Timer"]

FAR = 2**62  # later than every event
_FIRST = -1  # sorts before all alarms for the same time


class Clock:
    """A clock that starts at 0. `now` is a plain attribute for speed: nothing is read so often."""

    __slots__ = ("_heap", "_number", "background", "now")

    def __init__(self) -> None:
        self.now = 0  # nanoseconds of virtual time
        self.background = 0  # pending alarms that do not keep a run alive by themselves
        self._heap: list[tuple[int, int, Alarm]] = []
        self._number = 0

    @property
    def empty(self) -> bool:
        """Whether no alarm is pending."""
        return not self._heap

    @property
    def stalled(self) -> bool:
        """Whether only background alarms are pending: a deadlock, unless a fault resolves it."""
        return len(self._heap) <= self.background

    def run(self) -> None:
        """Ring alarms until none is pending; `StopSimulation` ends it earlier."""
        heap = self._heap
        while heap:
            self.now, _, alarm = heappop(heap)
            alarm.then(alarm)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise KeyboardInterrupt only between two alarms, where the state is consistent; a second one comes at once.

        It handles all signals that raise KeyboardInterrupt. Only a main thread gets signals; elsewhere nothing changes.
        """
        heap, pending = self._heap, False

        def between_alarms(number: int, frame: Any) -> None:
            nonlocal pending
            if pending:
                raise KeyboardInterrupt
            pending = True
            alarm = Alarm()
            alarm.then = _interrupt
            heappush(heap, (heap[0][0] if heap else self.now, _FIRST, alarm))  # `now` may be about to be a later time

        heard = [number for number in interrupts.SIGNALS if _interrupts(number)]
        for number in heard:
            signal.signal(number, between_alarms)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, signal.default_int_handler)


def _interrupts(number: signal.Signals) -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(number) is signal.default_int_handler


def _interrupt(_: Alarm) -> None:
    raise KeyboardInterrupt


class Alarm:
    """A reusable alarm, pending for one time at most."""

    __slots__ = ("then",)
    then: Callable[[Any], object]
    """The function to call with the alarm at its time: a function, or a method of its class. It may be replaced while
    the alarm is pending."""

    def set(self, clock: Clock, at_ns: int, then: Callable[[Any], object]) -> None:
        """Call `then` at this time; if that is now, after all other alarms for now."""
        self.then = then
        clock._number = number = clock._number + 1
        heappush(clock._heap, (at_ns, number, self))

    def cancel(self) -> None:
        """Let the alarm ring without effect. It must not be set again before its time."""
        self.then = _nothing


def _nothing(_: Alarm) -> None:
    pass


class Timer(Alarm):
    """An alarm for a function without arguments; a background one does not keep a run alive by itself."""

    __slots__ = ("_background", "_call", "_clock")

    def __init__(self, clock: Clock, delay_ns: int, call: Callable[[], object], background: bool = False) -> None:
        self._clock, self._call, self._background = clock, call, background
        clock.background += background
        self.set(clock, clock.now + delay_ns, Timer.ring)

    def ring(self) -> None:
        self._clock.background -= self._background
        self._call()
