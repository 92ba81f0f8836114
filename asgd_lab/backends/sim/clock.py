"""The virtual clock: an integer number of nanoseconds, and the heap of the alarms that will ring.

Alarms of one time ring in the order in which they were set, as simpy's events do, whose order a test holds this one
against. An alarm waits for one thing after the other, so that nothing is allocated to wait. Nobody else touches the
heap.
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

FAR = 2**62  # later than everything that happens
_FIRST = -1  # before all that is set for the same time


class Clock:
    """Starts at 0. `now` is for everybody to read, and a plain attribute: nothing is read so often."""

    __slots__ = ("_heap", "_number", "background", "now")

    def __init__(self) -> None:
        self.now = 0  # nanoseconds of virtual time
        self.background = 0  # alarms set that alone keep no run alive
        self._heap: list[tuple[int, int, Alarm]] = []
        self._number = 0

    @property
    def empty(self) -> bool:
        """Whether nothing at all will happen."""
        return not self._heap

    @property
    def stalled(self) -> bool:
        """Whether nothing more will happen by itself: a deadlock, unless a fault in the background resolves it."""
        return len(self._heap) <= self.background

    def run(self) -> None:
        """Until nothing is left to happen; `StopSimulation` ends it earlier."""
        heap = self._heap
        while heap:
            self.now, _, alarm = heappop(heap)
            alarm.then(alarm)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let KeyboardInterrupt come between two alarms only, where everything adds up; a second one comes at once.

        For all signals that raise it. Only a main thread hears signals; elsewhere nothing changes.
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
    """Something that waits for a time, again and again, for one at a time."""

    __slots__ = ("then",)
    then: Callable[[Any], object]
    """What is called with the alarm when its time has come: a function, or a method of its class. It may be replaced
    until then."""

    def set(self, clock: Clock, at_ns: int, then: Callable[[Any], object]) -> None:
        """Call `then` at this time; if that is now, later than all that is due now."""
        self.then = then
        clock._number = number = clock._number + 1
        heappush(clock._heap, (at_ns, number, self))

    def cancel(self) -> None:
        """It will ring and nobody hear it. It must not be set again before then."""
        self.then = _nothing


def _nothing(_: Alarm) -> None:
    pass


class Timer(Alarm):
    """An alarm for a function that looks at no alarm; in the background if it alone should keep no run alive."""

    __slots__ = ("_background", "_call", "_clock")

    def __init__(self, clock: Clock, delay_ns: int, call: Callable[[], object], background: bool = False) -> None:
        self._clock, self._call, self._background = clock, call, background
        clock.background += background
        self.set(clock, clock.now + delay_ns, Timer.ring)

    def ring(self) -> None:
        """The time has come."""
        self._clock.background -= self._background
        self._call()
