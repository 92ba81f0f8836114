"""Fair sharing over several capacities: max-min rates, and who is done when, against exact rational arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from asgd_lab.backends.sim.clock import Clock, Timer
from asgd_lab.backends.sim.sharing import Capacity, Class, Sharing, fill


@dataclass(frozen=True)
class Flow:
    """What a taker passes, by the numbers of capacities, and its cap."""

    passes: tuple[int, ...]
    cap: int | None


def max_min(flows: list[Flow], capacities: list[int]) -> list[Fraction]:
    """Progressive filling, flow by flow: raise all that still can, by as much as the first who meets a limit allows.

    Bertsekas and Gallager, Data Networks, section 6.5.2.
    """
    rates = [Fraction(0)] * len(flows)
    rising = set(range(len(flows)))
    while rising:
        free = [Fraction(size) for size in capacities]
        for flow, rate in zip(flows, rates, strict=True):
            for capacity in flow.passes:
                free[capacity] -= rate
        step: Fraction | None = None
        for capacity, left in enumerate(free):
            users = sum(capacity in flows[index].passes for index in rising)
            if users and (step is None or left / users < step):
                step = left / users
        for index in rising:
            cap = flows[index].cap
            if cap is not None and (step is None or cap - rates[index] < step):
                step = cap - rates[index]
        assert step is not None
        for index in rising:
            rates[index] += step
        free = [Fraction(size) for size in capacities]
        for flow, rate in zip(flows, rates, strict=True):
            for capacity in flow.passes:
                free[capacity] -= rate
        rising = {
            index
            for index in rising
            if rates[index] != flows[index].cap and all(free[capacity] > 0 for capacity in flows[index].passes)
        }
    return rates


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[int], list[tuple[Flow, int]]]:
    """(capacities, classes of flows: what they pass, and how many there are)."""
    capacities = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    flows = st.builds(
        lambda passes, cap: Flow(tuple(sorted(passes)), cap),
        st.sets(st.integers(0, len(capacities) - 1), min_size=1),
        st.none() | st.integers(1, 6),
    )
    classes = draw(st.lists(st.tuples(flows, st.integers(1, 4)), min_size=1, max_size=6, unique_by=lambda one: one[0]))
    return capacities, classes


def filled(capacities: list[int], classes: list[tuple[Flow, int]]) -> list[float]:
    """What `fill` says of the classes."""
    made = [Capacity(str(index), size) for index, size in enumerate(capacities)]
    found = []
    for flow, count in classes:
        one = Class([made[index] for index in flow.passes], math.inf if flow.cap is None else flow.cap)
        one.count = count
        found.append(one)
    fill(found)
    return [one.rate for one in found]


@given(case=networks())
@settings(max_examples=150)
def test_rates_are_those_of_progressive_filling_flow_by_flow(case: Any) -> None:
    """The same rates in exact fractions, without classes."""
    capacities, classes = case
    flows = [flow for flow, count in classes for _ in range(count)]
    exact = max_min(flows, capacities)
    for (flow, _), rate in zip(classes, filled(capacities, classes), strict=True):
        assert rate == pytest.approx(float(exact[flows.index(flow)]), rel=1e-12)


@given(case=networks())
@settings(max_examples=150)
def test_no_rate_can_be_raised_without_lowering_one_that_is_no_larger(case: Any) -> None:
    """Max-min optimality: all fit, and each is at its cap or has a bottleneck, a full capacity where nobody has more.

    Bertsekas and Gallager, Data Networks, section 6.5.2: a vector of rates is max-min fair if and only if this holds.
    """
    capacities, classes = case
    rates = filled(capacities, classes)
    slack = 1e-9
    loads = [
        sum(rate * count for (flow, count), rate in zip(classes, rates, strict=True) if capacity in flow.passes)
        for capacity in range(len(capacities))
    ]
    assert all(load <= size * (1 + slack) for load, size in zip(loads, capacities, strict=True))
    for (flow, _), rate in zip(classes, rates, strict=True):
        assert rate > 0
        assert flow.cap is None or rate <= flow.cap * (1 + slack)
        largest = {
            capacity: max(r for (f, _), r in zip(classes, rates, strict=True) if capacity in f.passes)
            for capacity in flow.passes
        }
        at_cap = flow.cap is not None and rate >= flow.cap * (1 - slack)
        assert at_cap or any(
            loads[capacity] >= capacities[capacity] * (1 - slack) and rate >= largest[capacity] * (1 - slack)
            for capacity in flow.passes
        )


def test_a_line_of_three_links_is_divided_as_in_the_textbook() -> None:
    """A flow over all of a line of capacities 1, 1, 2 beside one on each: 1/2, 1/2, 1/2, 3/2."""
    rates = filled([1, 1, 2], [(Flow((0, 1, 2), None), 1), *((Flow((link,), None), 1) for link in range(3))])
    assert rates == [0.5, 0.5, 0.5, 1.5]


# ---------------------------------------------------------------- who is done when


@dataclass(frozen=True)
class Transfer:
    """A taker in time: when it comes, how much it wants, and when it is withdrawn if it is not done by then."""

    flow: Flow
    begin: int
    amount: int
    withdrawn: int | None = None


def ours(transfers: list[Transfer], capacities: list[int]) -> tuple[list[int | None], list[float], list[int]]:
    """(when each is done, what each capacity has carried, the integral of its takers), by `Sharing`."""
    clock = Clock()
    sharing = Sharing(clock)
    made = [Capacity(str(index), size) for index, size in enumerate(capacities)]
    ends: list[int | None] = [None] * len(transfers)

    def begin(index: int) -> Callable[[], None]:
        transfer = transfers[index]
        flow = transfer.flow
        one = sharing.add([made[each] for each in flow.passes], math.inf if flow.cap is None else flow.cap)

        def done() -> None:
            assert ends[index] is None
            ends[index] = clock.now

        def withdraw() -> None:
            if ends[index] is None:
                sharing.withdraw(one, entries[index])

        def run() -> None:
            entries[index] = sharing.take(one, transfer.amount, done)
            if transfer.withdrawn is not None:
                Timer(clock, transfer.withdrawn - clock.now, withdraw)

        return run

    entries: dict[int, list[Any]] = {}
    starts = [begin(index) for index in range(len(transfers))]  # classes are added before the first is used
    for transfer, start in zip(transfers, starts, strict=True):
        Timer(clock, transfer.begin, start)
    clock.run()
    sharing.move()
    assert all(capacity.takers == 0 for capacity in made)
    return ends, [capacity.used for capacity in made], [capacity.present_ns for capacity in made]


def exact(transfers: list[Transfer], capacities: list[int]) -> tuple[list[Fraction | None], list[Fraction]]:
    """(when each is done, what each capacity has carried): every flow is looked at again at every change."""
    now = Fraction(0)
    left: dict[int, Fraction] = {}
    ends: list[Fraction | None] = [None] * len(transfers)
    carried = [Fraction(0)] * len(capacities)
    coming = sorted(range(len(transfers)), key=lambda index: transfers[index].begin)
    while coming or left:
        present = list(left)
        rates = dict(zip(present, max_min([transfers[i].flow for i in present], capacities), strict=True))
        changes = [now + left[index] / rates[index] for index in present]
        changes += [Fraction(transfers[coming[0]].begin)] if coming else []
        changes += [Fraction(w) for index in present if (w := transfers[index].withdrawn) is not None]
        then = min(changes)
        for index in present:
            drawn = (then - now) * rates[index]
            left[index] -= drawn
            for capacity in transfers[index].flow.passes:
                carried[capacity] += drawn
        now = then
        for index in present:
            if left[index] == 0:
                ends[index] = now
                del left[index]
            elif transfers[index].withdrawn == now:
                del left[index]
        while coming and transfers[coming[0]].begin == now:
            index = coming.pop(0)
            left[index] = Fraction(transfers[index].amount)
    return ends, carried


SCALE = 10_000  # nanoseconds: what rounding to the clock's grid may add up to is far below


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[int], list[Transfer]]:
    """(capacities, transfers over few classes that meet on some of them, most of whose members overlap in time)."""
    capacities = draw(st.lists(st.integers(2, 6), min_size=1, max_size=3))
    kinds = [Flow((0,), None), *(Flow((index - 1, index), None) for index in range(1, len(capacities)))]
    kinds += [Flow((len(capacities) - 1,), None), Flow(tuple(range(len(capacities))), draw(st.integers(1, 3)))]
    transfers = st.builds(
        lambda flow, begin, amount, stays: Transfer(
            flow, begin * SCALE, amount * SCALE, None if stays is None else (begin + stays) * SCALE + 7
        ),
        st.sampled_from(kinds),
        st.integers(0, 9),
        st.integers(1, 40),
        st.none() | st.none() | st.integers(1, 9),
    )
    return capacities, draw(st.lists(transfers, min_size=1, max_size=9))


ROUNDING_NS = 5


def hold_against_exact_arithmetic(capacities: list[int], transfers: list[Transfer]) -> None:
    """Who is done when, and what each capacity has carried; and the integral of who was there, exactly."""
    ends, carried, present = ours(transfers, capacities)
    expected, amounts = exact(transfers, capacities)
    stayed = [0] * len(capacities)
    for transfer, end, exactly in zip(transfers, ends, expected, strict=True):
        if end is None or exactly is None:
            edge = transfer.withdrawn  # done at the very moment of its withdrawal, or not quite
            last = end if end is not None else exactly
            assert last is None or (edge is not None and abs(last - edge) <= ROUNDING_NS)
        else:
            assert abs(end - exactly) <= ROUNDING_NS
        gone = end if end is not None else transfer.withdrawn
        assert gone is not None
        for capacity in transfer.flow.passes:
            stayed[capacity] += gone - transfer.begin
    for index, size in enumerate(capacities):
        assert carried[index] == pytest.approx(float(amounts[index]), abs=ROUNDING_NS * size * len(transfers))
        assert present[index] == stayed[index], "Little's law"


@given(case=traffic())
@settings(max_examples=150)
def test_transfers_are_done_when_exact_arithmetic_says_so(case: Any) -> None:
    """Joins, ends and withdrawals, each of which divides all that is connected anew; and bytes are conserved."""
    hold_against_exact_arithmetic(*case)


@pytest.mark.parametrize("seed", range(10))
def test_dense_traffic_is_done_when_exact_arithmetic_says_so(seed: int) -> None:
    """Thirty transfers over a line of three, a quarter of them withdrawn."""
    random = np.random.default_rng(seed)
    kinds = [
        *(Flow((0,), None), Flow((0, 1), None), Flow((1,), 2)),
        *(Flow((1, 2), None), Flow((2,), None), Flow((0, 1, 2), 1)),
    ]
    transfers = []
    for kind, begin, amount in zip(
        random.integers(len(kinds), size=30),
        random.integers(20 * SCALE, size=30).tolist(),
        random.integers(SCALE, 40 * SCALE, size=30).tolist(),
        strict=True,
    ):
        withdrawn = begin + int(random.integers(SCALE, 9 * SCALE)) if random.random() < 0.25 else None
        transfers.append(Transfer(kinds[kind], begin, amount, withdrawn))
    hold_against_exact_arithmetic([int(size) for size in random.integers(2, 7, size=3)], transfers)


def test_whoever_is_slowed_on_one_link_leaves_room_to_another_on_the_next() -> None:
    """Two links of 1 byte a nanosecond: h on the first, f on both, g on the second; a second h comes at 10 us.

    Then h and f fall from 1/2 to 1/3 and g rises to 2/3: of its 40,000 bytes 5,000 have gone, and 35,000 take 52.5 us.
    """
    h, f, g = Flow((0,), None), Flow((0, 1), None), Flow((1,), None)
    transfers = [
        Transfer(h, 0, 100_000),
        Transfer(f, 0, 500_000),
        Transfer(g, 0, 40_000),
        Transfer(h, 10_000, 300_000),
    ]
    ends, _, _ = ours(transfers, [1, 1])
    assert ends[2] == 62_500
    assert ends == [pytest.approx(float(end)) for end in exact(transfers, [1, 1])[0]]  # type: ignore[arg-type]


def test_a_link_is_divided_anew_when_a_transfer_comes_ends_or_is_withdrawn() -> None:
    """By hand, on a link of 4: A alone until 10, half until B is withdrawn at 20, alone until C comes at 30.

    A has had 40 + 20 + 40 of its 140 by then; C takes its 20 beside it, until 40; A has the last 20 alone, until 45.
    """
    flow = Flow((0,), None)
    a, b, c = (
        Transfer(flow, 0, 140_000),
        Transfer(flow, 10_000, 10**9, 20_000),
        Transfer(flow, 30_000, 20_000),
    )
    ends, carried, present = ours([a, b, c], [4])
    assert ends == [45_000, None, 40_000]
    assert carried == [pytest.approx(180_000)]
    assert present == [45_000 + 10_000 + 10_000]


def test_a_cap_leaves_the_rest_to_the_others() -> None:
    """On a link of 4, a transfer that is never faster than 1 leaves 3 to the other; alone it still has 1."""
    slow, free = Flow((0,), 1), Flow((0,), None)
    ends, _, _ = ours([Transfer(slow, 0, 30_000), Transfer(free, 0, 60_000)], [4])
    assert ends == [30_000, 20_000]
