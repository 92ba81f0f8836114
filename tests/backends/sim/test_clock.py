"""The clock's order is simpy's: the same random schedules happen in the same order and at the same times."""

from __future__ import annotations

from collections.abc import Generator

import hypothesis.strategies as st
import pytest
import simpy
from hypothesis import given, settings

from asgd_lab.backends.sim.clock import Alarm, Clock, StopSimulation, Timer

Log = list[tuple[int, int, str]]
"""(time, which waiter, what)"""
Waits = list[int]
"""How long a waiter waits for one thing after the other; ties are the rule."""

waits = st.lists(st.integers(0, 3), min_size=1, max_size=6)
strikes = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 4), st.sampled_from(["interrupted", "ended"])), max_size=5
)


class Waiter:
    """Waits for one thing after the other; interrupted, it goes on with the next at once."""

    def __init__(self, clock: Clock, number: int, waits: Waits, log: Log) -> None:
        self._clock, self._number, self._log, self._waits = clock, number, log, iter(waits)
        self._alarm: Alarm | None = Alarm()
        self._note("begins")
        self._wait(self._alarm)

    def _note(self, what: str) -> None:
        self._log.append((self._clock.now, self._number, what))

    def _wait(self, alarm: Alarm) -> None:
        length = next(self._waits, None)
        if length is None:
            self._alarm = None
        else:
            self._alarm = alarm
            alarm.set(self._clock, self._clock.now + length, self._ring)

    def _ring(self, alarm: Alarm) -> None:
        self._note("rings")
        self._wait(alarm)

    def strike(self, what: str) -> None:
        """Nothing for one that is over."""
        if self._alarm is not None:
            self._note(what)
            self._alarm.cancel()
            self._alarm = None
            if what == "interrupted":
                self._wait(Alarm())  # the old one is yet to ring


def by_clock(schedules: list[Waits], strikes: list[tuple[int, int, str]]) -> Log:
    clock, log = Clock(), []  # type: ignore[var-annotated]
    waiters = [Waiter(clock, number, waits, log) for number, waits in enumerate(schedules)]
    for time, number, what in strikes:
        Timer(clock, time, lambda number=number, what=what: waiters[number].strike(what))  # type: ignore[misc]
    clock.run()
    return log


def by_simpy(schedules: list[Waits], strikes: list[tuple[int, int, str]]) -> Log:
    env, log = simpy.Environment(), []  # type: ignore[var-annotated]

    def wait(number: int, waits: Waits) -> Generator[simpy.Event, None, None]:
        log.append((env.now, number, "begins"))
        for length in waits:
            try:
                yield env.timeout(length)
                log.append((env.now, number, "rings"))
            except simpy.Interrupt as interrupt:
                log.append((env.now, number, interrupt.cause))
                if interrupt.cause == "ended":
                    return

    def strike(process: simpy.Process, what: str) -> None:
        if process.is_alive:
            process.interrupt(what)

    processes = [env.process(wait(number, waits)) for number, waits in enumerate(schedules)]
    env.run(until=env.timeout(0))  # all have begun, and wait
    for time, number, what in strikes:
        timeout = env.timeout(time)
        timeout.callbacks.append(lambda _, number=number, what=what: strike(processes[number], what))  # type: ignore[misc]
    env.run()
    return log


@given(schedules=st.lists(waits, min_size=1, max_size=5), strikes=strikes)
@settings(max_examples=300)
def test_alarms_ring_in_the_order_of_simpys_timeouts_and_interrupts(
    schedules: list[Waits], strikes: list[tuple[int, int, str]]
) -> None:
    strikes = [strike for strike in strikes if strike[1] < len(schedules)]
    assert by_clock(schedules, strikes) == by_simpy(schedules, strikes)


@given(schedules=st.lists(waits, min_size=1, max_size=5), end=st.integers(1, 8), waiter=st.integers(0, 4))
@settings(max_examples=200)
def test_a_stop_ends_the_run_where_it_ends_simpys(schedules: list[Waits], end: int, waiter: int) -> None:
    """An alarm that raises `StopSimulation`, against a timeout set at the same place whose event simpy runs until."""
    clock, mine = Clock(), []  # type: ignore[var-annotated]
    env, theirs = simpy.Environment(), []  # type: ignore[var-annotated]

    def stop() -> None:
        raise StopSimulation(None)

    def wait(number: int, waits: Waits) -> Generator[simpy.Event, None, None]:
        theirs.append((env.now, number, "begins"))
        for length in waits:
            yield env.timeout(length)
            theirs.append((env.now, number, "rings"))

    Timer(clock, end, stop)
    until = env.timeout(end)
    for number, waits in enumerate(schedules):
        Waiter(clock, number, waits, mine)
        env.process(wait(number, waits))
    with pytest.raises(StopSimulation):
        clock.run()
    env.run(until=until)
    assert clock.now == env.now == end
    assert [each for each in mine if each[0] < end] == [each for each in theirs if each[0] < end]


def test_an_alarm_may_be_set_for_now_and_rings_after_all_that_is_due_now() -> None:
    clock, heard = Clock(), []  # type: ignore[var-annotated]

    def again() -> None:
        heard.append("first")
        Timer(clock, 0, lambda: heard.append("set while it rang"))

    Timer(clock, 5, again)
    Timer(clock, 5, lambda: heard.append("second"))
    clock.run()
    assert heard == ["first", "second", "set while it rang"]
    assert clock.now == 5
