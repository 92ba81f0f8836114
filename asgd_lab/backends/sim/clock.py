"""The virtual clock: simpy's environment, whose time is an integer number of nanoseconds.

simpy breaks ties by its sequence numbers, in order of scheduling. What it schedules here are alarms: objects that wait
for one thing after the other and are their own event, so that nothing is allocated to wait.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL, URGENT

from asgd_lab import interrupts

Callbacks = tuple[Callable[[Any], object], ...]
"""What is called with the alarm when its time has come: functions of its class, or bound methods."""


class Clock(simpy.Environment):
    """Starts at 0. Times given to it are integers, so its time is one."""

    _now: int
    background = 0  # alarms set that alone keep no run alive

    @property
    def now(self) -> int:
        """Nanoseconds of virtual time."""
        return self._now

    @property
    def empty(self) -> bool:
        """Whether nothing at all will happen."""
        return not self._queue

    def go_on(self) -> None:
        """Until nothing is left to happen; `StopSimulation` ends it earlier.

        simpy's own `run` and `step` in one loop, without their care for events that fail: an alarm does not.
        """
        queue = self._queue
        while queue:
            self._now, _, _, event = heappop(queue)  # type: ignore[assignment]
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let KeyboardInterrupt come between two events only, where everything adds up; a second one comes at once.

        For all signals that raise it. Only a main thread hears signals; elsewhere nothing changes.
        """
        queue, pending = self._queue, False

        def between_events(number: int, frame: Any) -> None:
            nonlocal pending
            if pending:
                raise KeyboardInterrupt
            pending = True
            next_ns = queue[0][0] if queue else self._now  # `_now` may be about to become a later time
            heappush(queue, (next_ns, URGENT, -1, _Interruption()))  # type: ignore[misc]

        heard = [number for number in interrupts.SIGNALS if _interrupts(number)]
        for number in heard:
            signal.signal(number, between_events)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, signal.default_int_handler)

    @property
    def stalled(self) -> bool:
        """Whether nothing more will happen by itself: a deadlock, unless a fault in the background resolves it."""
        return len(self._queue) <= self.background


def _interrupts(number: signal.Signals) -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(number) is signal.default_int_handler


class Alarm:
    """Something that waits for a time, again and again, for one at a time."""

    __slots__ = ("callbacks",)
    _ok = True  # as simpy's events have it
    callbacks: Callbacks | None

    def set(self, clock: Clock, delay_ns: int, callbacks: Callbacks) -> None:
        """Call `callbacks` in so many nanoseconds; 0 is later than all that is due now."""
        self.callbacks = callbacks
        # simpy's own `schedule`, without the call: no other line runs so often.
        heappush(clock._queue, (clock._now + delay_ns, NORMAL, next(clock._eid), self))  # type: ignore[misc]

    def cancel(self) -> None:
        """It will ring and nobody hear it. It must not be set again before then."""
        self.callbacks = ()


class Timer(Alarm):
    """An alarm for a function that looks at no alarm; in the background if it alone should keep no run alive."""

    __slots__ = ("_background", "_clock", "_then")

    def __init__(self, clock: Clock, delay_ns: int, then: Callable[[], object], background: bool = False) -> None:
        self._clock, self._then, self._background = clock, then, background
        clock.background += background
        self.set(clock, delay_ns, _RING)

    def ring(self) -> None:
        """The time has come."""
        self._clock.background -= self._background
        self._then()


_RING: Callbacks = (Timer.ring,)


class _Interruption(Alarm):
    """Rings before whatever else is due."""

    __slots__ = ()

    def __init__(self) -> None:
        self.callbacks = (_interrupt,)


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt
