"""What must hold in every simulated run, whatever the scenario: each law recounted from the rows, to the nanosecond.

What is still under way when a run ends has no row. It is read off the workers' exchanges, as far as their stages have
been reached. What a crash has cut off is known from neither: there an equality becomes a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from asgd_lab.backends.sim.accounts import COMPUTE, GATE, QUEUE, WASTED
from asgd_lab.backends.sim.clock import FAR
from asgd_lab.backends.sim.exchange import Exchange, Slice
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.network import DOWN, UP, Route
from asgd_lab.backends.sim.ordered import InOrder
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.servers import Fcfs, OnCores, Queue
from asgd_lab.backends.sim.sharing import Capacity
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.backends.sim.worker import SimWorker
from asgd_lab.protocol.messages import DROPPED, NOWHERE
from asgd_lab.record.columns import KINDS

if TYPE_CHECKING:
    from tests.backends.virtual import Run

Ints = npt.NDArray[np.int64]


def check_invariants(run: Run) -> None:
    """All of them; `run` is over and has recorded every row."""
    sim, rows = run.simulation, by_kind(run.effects)
    rows_are_intervals(sim, rows)
    every_nanosecond_is_under_one_heading(sim, rows["train"])
    servers_obey_utilisation_law_and_littles_law(sim, rows)
    links_conserve_bytes_and_obey_littles_law(sim, rows)
    links_of_ones_own_are_used_for_as_long_as_transfers_take(sim, rows)
    work_is_conserved(sim, rows)
    staleness_is_the_versions_since_the_oldest_center(sim, rows, by_kind(run.applies)["apply"])
    what_a_worker_does_one_after_the_other_does_not_overlap(sim, rows)
    shares_are_between_none_and_all(run)


class Rows(NamedTuple):
    """Rows of one kind, column by column; times in nanoseconds."""

    worker: Ints
    round: Ints
    start_s: Ints
    end_s: Ints
    wait_s: Ints
    version: Ints
    staleness: Ints
    steps: Ints
    shard: Ints

    def only(self, which: Any) -> Rows:
        """Those of a mask, or in the order of indices."""
        return Rows(*(column[which] for column in self))

    @property
    def lasts(self) -> Ints:
        """Nanoseconds."""
        return self.end_s - self.start_s


def by_kind(effects: pd.DataFrame) -> dict[str, Rows]:
    """All kinds, also those that did not happen."""
    everything = Rows(*(effects[name].to_numpy() for name in Rows._fields))
    kinds = effects["kind"].to_numpy()
    return {kind: everything.only(kinds == kind) for kind in KINDS}


def summed(values: Ints, worker: Ints, workers: int) -> list[int]:
    """Each worker's sum."""
    found = np.zeros(workers, np.int64)
    np.add.at(found, worker, values)
    return found.tolist()


def under_way(sim: Simulation) -> Iterator[Exchange]:
    """What nobody has had back, of the incarnations that are there."""
    for worker in sim.workers:
        if worker.alive:
            yield from (each for each in worker.exchanges.values() if each.in_flight and each.released == FAR)


# ---------------------------------------------------------------- the invariants


def rows_are_intervals(sim: Simulation, rows: dict[str, Rows]) -> None:
    for kind, of in rows.items():
        assert (of.start_s >= 0).all()
        assert (of.lasts >= 0).all()
        assert (of.wait_s >= 0).all()
        # A copy to the device is known, and has its row, when the transfer before it is.
        assert kind == "to_device" or (of.start_s <= sim.end_ns).all()


def every_nanosecond_is_under_one_heading(sim: Simulation, trains: Rows) -> None:
    """A worker's headings sum to the makespan; computing is what its trains, and the one under way, have lasted."""
    computed = summed(trains.lasts, trains.worker, len(sim.workers))
    for worker, account in zip(sim.workers, sim.accounts, strict=True):
        assert sum(account.spent_ns) == sim.end_ns
        assert min(account.spent_ns) >= 0
        training = worker.training
        running = max(0, sim.end_ns - training.begun) if worker.alive and training.under_way else 0
        spent = account.spent_ns[COMPUTE] + account.spent_ns[WASTED]
        assert spent >= computed[worker.number] + running
        assert spent == computed[worker.number] + running or sim.faults is not None


def servers_obey_utilisation_law_and_littles_law(sim: Simulation, rows: dict[str, Rows]) -> None:
    """A server is busy for the sum of its services; the integral of how many are there is the sum of their times there.

    Both as a server has counted them while it went, and as the rows tell afterwards. Requests are served in order of
    arrival, one at a time; of servers in one order, in the order of arrival at the first.
    """
    end, several = sim.end_ns, len(sim.machine.queues) > 1
    served = Rows(*map(np.concatenate, zip(rows["apply"], rows["grant"], strict=True)))
    silent = (
        not sim.machine.costs.server_fetch_ns and not sim.machine.one_sided
    )  # a fetch that costs nothing queues, and has no row
    for index, queue in enumerate(sim.machine.queues):
        of = served.only(served.shard == index) if several else served  # of one server, `shard` is the part
        pending = list(_waiting(sim, queue))
        busy = int((np.minimum(of.end_s, end) - np.minimum(of.start_s, end)).sum())
        busy += sum(max(0, min(each.served, end) - each.started) for each in pending)
        present = int((of.lasts + of.wait_s).sum()) + sum(min(each.served, end) - each.arrived for each in pending)
        assert 0 <= queue.busy_ns <= end
        if sim.faults is None:
            assert queue.busy_ns == busy
            assert queue.present_ns == present or (silent and queue.present_ns > present)
        else:  # a request whose worker is gone is served for nothing
            assert queue.busy_ns >= busy
            assert queue.present_ns >= present
        overlaps = sim.algorithm.name == "downpour" or sim.algorithm.parts > 0
        if not (overlaps or several or sim.machine.one_sided or sim.faults is not None):
            waited = sum(account.spent_ns[QUEUE] for account in sim.accounts)
            assert queue.present_ns == waited, "who waits for the server is there"
        of = of.only(of.lasts > 0)
        of = of.only(np.argsort(of.start_s, kind="stable"))
        assert (of.start_s[1:] >= of.end_s[:-1]).all(), "one at a time"
        if index == 0 or sim.machine.apart:
            assert (np.diff(of.start_s - of.wait_s) >= 0).all(), "first come, first served"


def links_conserve_bytes_and_obey_littles_law(sim: Simulation, rows: dict[str, Rows]) -> None:
    """What a capacity has carried are the bytes of the transfers that passed it, up to a nanosecond's worth of each.

    And the integral of how many are on it is the sum of their times.
    """
    rung = {id(alarm): time for time, _, alarm in sim.clock._heap}
    workers = len(sim.workers)
    exact = len(sim.machine.queues) == 1 and sim.faults is None
    for side, done, moved in ((UP, rows["push"], rows["up"]), (DOWN, rows["fetch"], rows["down"])):
        if side == DOWN:  # a lease of nothing moves nothing
            done = done.only((done.steps > 0) | (done.shard > 0))
        lasted = summed(moved.lasts, moved.worker, workers)
        transfers = np.bincount(moved.worker, minlength=workers).tolist()
        going = [each for each in (under_way(sim) if side == UP else _fetches(sim)) if _left(each) <= sim.end_ns]
        for capacity in sim.machine.network.capacities:
            if not capacity.name.endswith((" up", " down")[side]):
                continue
            least = most = largest = 0.0
            present = 0
            for worker in range(workers):
                routes = _routes(sim, side, worker, capacity)
                size = sum(route.bytes for _, route in routes)
                mine = done.shard[done.worker == worker]
                passed = sum(route.bytes * int((mine < 0).sum() + (mine == part).sum()) for part, route in routes)
                least += passed
                most += passed
                largest = max(largest, size)
                present += sum(lasted[worker] - route.latency_ns * transfers[worker] for _, route in routes)
            for each in going:
                part = each.request.part  # type: ignore[attr-defined]
                routes = [
                    (server, route)
                    for server, route in _routes(sim, side, each.worker.number, capacity)
                    if part < 0 or part == server
                ]
                size = sum(route.bytes for _, route in routes)
                most += size
                if exact and routes:
                    begun, flown = _flight(each, routes[0][1], rung)
                    present += min(flown, sim.end_ns) - begun
                    least += size if flown <= sim.end_ns else 0
            if sim.faults is not None:
                most += largest * sim.faults.crashes * (sim.algorithm.depth if side == UP else 1)
            slack = 1e-9 * most + capacity.per_ns * (len(done.worker) + workers + 1)
            assert least - slack <= capacity.used <= most + slack
            assert capacity.used <= capacity.per_ns * sim.end_ns * (1 + 1e-9)
            if exact:
                assert capacity.present_ns == present


def links_of_ones_own_are_used_for_as_long_as_transfers_take(sim: Simulation, rows: dict[str, Rows]) -> None:
    """Little's law where nobody shares: transfers are known ahead, and counted as far as they have gone."""
    if len(sim.machine.queues) > 1 or sim.faults is not None:
        return
    for side, moved in ((UP, rows["up"]), (DOWN, rows["down"])):
        alone = np.array([routes[0].alone_ns for routes in sim.machine.network.routes[side]])
        moved = moved.only(alone[moved.worker] > 0)
        going = [(_left(each), each.route.alone_ns) for each in (under_way(sim) if side == UP else _fetches(sim))]
        pending = sum(min(begun + lasts, sim.end_ns) - begun for begun, lasts in going if begun <= sim.end_ns)
        flown = np.minimum(moved.start_s + alone[moved.worker], sim.end_ns) - moved.start_s
        assert sim.machine.network.private[side].reader(sim.clock, 1)()[1] == flown.sum() + pending


def work_is_conserved(sim: Simulation, rows: dict[str, Rows]) -> None:
    """Every minibatch taken is in a push that ended, in one that is under way, not pushed yet, void, or lost in a
    crash.
    """
    first = rows["apply"].only(rows["apply"].shard == 0)
    each = rows["apply"] if sim.machine.apart else first  # a minibatch is counted when all parts are pushed with it
    taken = int(rows["train"].steps.sum())
    kept = sum(worker.replica.unpushed for worker in sim.workers if worker.alive)
    pushes = [push for push in under_way(sim) if isinstance(push, Push) and push.served == FAR]
    kept += sum({(push.worker.number, push.request.number): push.request.steps for push in pushes}.values())
    ended = int(each.steps.sum())
    void = wasted(sim)
    faults = sim.faults
    assert taken == ended + kept + void + (faults.lost_minibatches - faults.lost_under_way if faults is not None else 0)
    applied = first.only(first.version != DROPPED)
    versions = np.unique(applied.version)
    assert versions.tolist() == list(range(1, sim.server.version + 1)), "a version each, in order"
    assert sim.algorithm.gate.collects or len(versions) == len(applied.version)
    assert sim.server.minibatches == each.only(each.version != DROPPED).steps.sum()
    budget = sim.scenario.budget
    if budget.minibatches is not None:
        assert sim.server.minibatches <= budget.minibatches
        others = (budget.updates, budget.seconds, budget.target_error)
        assert sim.server.minibatches == budget.minibatches or any(each is not None for each in others)
    assert budget.updates is None or sim.server.version <= budget.updates


def staleness_is_the_versions_since_the_oldest_center(sim: Simulation, rows: dict[str, Rows], applies: Rows) -> None:
    """Of each push, from the versions that its minibatches were taken on: the oldest, that of the first of them.

    Summed over the pushes, 1 + staleness counts every pair of a version and a push that was under way when it was made:
    Little's law for versions, with gaps or without. And a fetch sees the newest version.
    """
    trains = rows["train"]
    order = np.lexsort((trains.round, trains.worker))  # stable: in time, within a worker's round
    trains = trains.only(order)
    key = trains.worker << 32 | trains.round
    rounds, first = np.unique(key, return_index=True)
    last = np.append(first[1:], len(key))
    pushes = rows["push"].only((rows["push"].version >= 0) & (rows["push"].shard <= 0))  # neither dropped nor kept
    place = np.searchsorted(rounds, pushes.worker << 32 | pushes.round)
    steps_of: Counter[tuple[int, int]] = Counter()
    for worker, round, steps in zip(rows["push"].worker, rows["push"].round, rows["push"].steps, strict=True):
        steps_of[int(worker), int(round)] += int(steps)
    for index, (begin, end) in enumerate(zip(first[place].tolist(), last[place].tolist(), strict=True)):
        steps = steps_of[int(pushes.worker[index]), int(pushes.round[index])]
        if sim.machine.apart and not steps:
            continue  # its other parts have not ended
        taken = 0
        while taken < steps and end > begin:
            end -= 1
            taken += int(trains.steps[end])
        assert taken == steps
        assert end == begin or sim.faults is not None or sim.stops, "a crash or a stop leaves minibatches behind"
        assert pushes.staleness[index] == pushes.version[index] - 1 - trains.version[end] >= 0
    if sim.algorithm.gate.collects:
        return
    applied = applies.only((applies.shard == 0) & (applies.version != DROPPED))
    made = np.concatenate([[0], applied.end_s[np.argsort(applied.version)], [FAR]])
    fetches = rows["fetch"].only(rows["fetch"].shard <= 0)
    assert (made[fetches.version] <= fetches.end_s).all()
    assert (made[fetches.version + 1] >= fetches.start_s).all()


def what_a_worker_does_one_after_the_other_does_not_overlap(sim: Simulation, rows: dict[str, Rows]) -> None:
    """Trains, and of each part fetches, and pushes beyond those that the algorithm's depth allows."""
    for kind, depth in (("train", 1), ("fetch", 1), ("push", sim.algorithm.depth)):
        of = rows[kind]
        of = of.only(np.lexsort((of.end_s, of.start_s, of.shard, of.worker)))
        before = of.end_s if sim.faults is None else of.start_s  # a row may end after the crash that cut it off
        same = (of.worker[depth:] == of.worker[:-depth]) & (of.shard[depth:] == of.shard[:-depth])
        assert (of.start_s[depth:] >= before[:-depth])[same].all(), kind


def shares_are_between_none_and_all(run: Run) -> None:
    """Utilisations, as the summary has them, over the run and over its parts."""
    sim, summary = run.simulation, run.summary()
    assert 0 <= summary["utilisation"]["server"] <= 1
    assert 0 <= summary["utilisation"]["workers"] <= 1
    assert sum(map(float, run.outcome.facts["time"]["mean"].values())) == pytest.approx(sim.end_ns * 1e-9)
    for one in run.outcome.facts["resources"]:
        over_time = one["over_time"]
        for value in (one["utilisation"], *over_time["utilisation"]):
            assert 0 <= value <= 1 + 1e-9
        assert all(value >= 0 for value in (one["present"], *over_time["present"]))
        lengths = np.diff([0.0, *over_time["end_s"]])
        for name in ("utilisation", "present"):
            whole = float(np.dot(lengths, over_time[name]))
            assert whole == pytest.approx(one[name] * sim.end_ns * 1e-9, rel=1e-6, abs=1e-6)
    assert all(account.spent_ns[GATE] == 0 for account in sim.accounts) or not _never_waits(sim)


# ---------------------------------------------------------------- inside


def _never_waits(sim: Simulation) -> bool:
    """Whether nobody can ever wait at the gate."""
    gate = sim.algorithm.gate
    return not gate.holds_back and not gate.collects and sim.scenario.budget.minibatches is None


def _waiting(sim: Simulation, queue: Queue) -> Iterator[Exchange | Slice]:
    """The requests that a server has in its queue or serves; or has served, of one that others have yet to serve."""
    if isinstance(queue, InOrder):
        exchanges = [each for each in under_way(sim) if each.served == FAR]
        slices = [each.slices[sim.machine.queues.index(queue)] for each in exchanges]
        yield from (each for each in slices if each.arrived <= sim.end_ns)
    elif isinstance(queue, OnCores):
        yield from (each for each in under_way(sim) if each.arrived <= sim.end_ns and each.served == FAR)
    else:
        assert isinstance(queue, Fcfs)
        yield from queue.requests  # type: ignore[misc]


def wasted(sim: Simulation) -> int:
    """The minibatches of stopped leases that were taken and not pushed to all parts."""
    return sim.server.wasted + sum(_unreported(worker) for worker in sim.workers if worker.alive)


def _unreported(worker: SimWorker) -> int:
    """Minibatches of stopped leases that the server has not been told of."""
    sent = [each for each in worker.exchanges.values() if each.in_flight]
    return worker.client.unreported + sum(each.request.wasted for each in sent if each.served == FAR)


def _fetches(sim: Simulation) -> Iterator[Exchange]:
    """Those whose vector is on its way, or there and not waited for."""
    for worker in sim.workers:
        for fetch in worker.exchanges.values() if worker.alive else ():
            moves = isinstance(fetch, Fetch) and fetch.in_flight and fetch.released != FAR
            if moves and fetch.answer.slot != NOWHERE:  # type: ignore[union-attr]
                yield fetch


def _left(each: Exchange) -> int:
    """When the vector left for where it goes."""
    return each.sent if isinstance(each, Push) else each.released


def _routes(sim: Simulation, side: int, worker: int, capacity: Capacity) -> list[tuple[int, Route]]:
    """Those to servers that pass it, each with its server."""
    return [
        (server, route)
        for server, route in enumerate(sim.machine.network.routes[side][worker])
        if route.sharing is not None and capacity in route.one.capacities
    ]


def _flight(each: Exchange, route: Route, rung: dict[int, int]) -> tuple[int, int]:
    """When a transfer began to share its route, and when it ceased to."""
    begun, there = _left(each), each.arrived if isinstance(each, Push) else each.landed
    if there != FAR:
        return begun, there - route.latency_ns
    return begun, FAR if each.entry is not None else rung[id(each)] - route.latency_ns
