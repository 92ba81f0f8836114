"""Hypothesis as the backend: it draws algorithm, workers and interleaving, effect by effect, with deaths and joins.

The task counts (see toys): its parameters say exactly whose minibatches are in them, so that work which is lost or
pushed twice shows as a wrong number.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgd_lab.backends.inline import Inline
from asgd_lab.backends.inline_observers import Observer
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.client import Step
from asgd_lab.protocol.gates import APPLY, HOLD, KEEP, Gate, Verdict, View, drop
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import DROPPED, KEPT, Ack, Answer, FetchRequest, Grant, PushRequest, Reason, Stop
from tests.outside.fedbuff import Buffer
from tests.outside.k_sync import FirstK
from tests.outside.ringmaster import Young
from tests.outside.ringmaster_stops import Stopping

from .toys import COUNTERS, Counting, built

counts = st.integers(1, 7)


class Whimsical(Gate):
    """Does anything that a gate may do, as the numbers of pushes and versions have it."""

    seed: int
    collects = True
    keeps = 64

    def _draw(self, sides: int, *what: int) -> int:
        return zlib.crc32(repr((self.seed, *what)).encode()) % sides

    def lease(self, worker: int, server: View) -> int:
        return 1 + self._draw(server.n_fetch, worker, server.version)

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        some = [APPLY, HOLD, KEEP, drop(Reason.STALE), drop(Reason.LATE, returns=False)]
        return some[self._draw(len(some), push.worker, push.number, push.base)]

    def complete(self, server: View) -> bool:
        return self._draw(3, server.version, len(server.kept)) == 0

    def stops(self, server: View) -> Iterable[int]:
        return [each for each in server.owing if self._draw(4, each, server.version) == 0]


GATES = st.one_of(
    st.builds(Whimsical, st.integers(0, 1000)),
    st.builds(Young, st.integers(1, 4)),
    st.builds(Stopping, st.integers(1, 4)),
    st.builds(FirstK, st.integers(1, 4)),
    st.builds(Buffer, st.integers(1, 4)),
)


@st.composite
def algorithm(draw: st.DrawFn) -> Algorithm:
    name = draw(st.sampled_from(["asgd", "downpour", "ssp", "sync_sgd", *["gate"] * 4]))
    keys: dict[str, Any] = {
        "name": draw(st.sampled_from(["asgd", "downpour"])) if name == "gate" else name,
        "push": draw(st.sampled_from(["delta", "gradient"])),
    }
    keys["rule"] = ["add"] if keys["push"] == "delta" else [{"name": "sgd", "lr": 1.0}]
    if name in ("asgd", "downpour", "gate"):
        keys |= {"n_fetch": draw(counts), "n_push": draw(counts)}
    else:
        keys |= {"n_sync": draw(counts)}
    if name == "downpour":
        keys["depth"] = draw(st.integers(1, 3))
    if name == "ssp":
        keys["bound"] = draw(st.integers(0, 2))
    made = built(keys)
    return replace(made, gate=draw(GATES)) if name == "gate" else made


budgets = st.one_of(
    st.builds(Budget, minibatches=st.integers(1, 60)),
    st.builds(Budget, updates=st.integers(1, 20)),
    st.builds(Budget, minibatches=st.integers(1, 60), updates=st.integers(1, 20)),
)


class Listening(Observer):
    def __init__(self, machine: Interleaving) -> None:
        self.step, self.answered = machine.step, machine.answered  # type: ignore[method-assign]


class Interleaving(RuleBasedStateMachine):
    @initialize(algorithm=algorithm(), budget=budgets, workers=st.integers(1, 5))
    def begin(self, algorithm: Algorithm, budget: Budget, workers: int) -> None:
        self.algorithm, self.budget = algorithm, budget
        self.accepted: Counter[tuple[int, int, int]] = Counter()  # (worker, incarnation, sequence) -> times ended
        self.in_versions = [0] * COUNTERS  # minibatches of each worker
        self.version = 0
        self.fetched: dict[int, int] = {}  # worker -> the version it trains on
        self.oldest: dict[int, int | None] = {}  # worker -> version of the oldest center in its unpushed work
        self.rounds: Counter[int] = Counter()  # pushes of each member since it joined, on top of where it joined
        self.arriving: dict[tuple[int, int, int], int] = {}  # the same -> its oldest center
        self.waiting: set[int] = set()  # workers that wait for the end of a push
        self.lost = self.wasted = 0  # minibatches that were dropped for good, and taken in vain
        self.stopped: set[tuple[int, int, int]] = set()  # (worker, incarnation, lease)
        self.asked: dict[int, Grant | None] = {}  # worker -> what it was granted ahead, and has not waited for
        self.killed = False
        self.lab = Inline(Counting(), algorithm, budget, workers, observer=Listening(self))
        self.next_worker = workers
        self.dead: list[int] = []

    # ------------------------------------------------------------ the independent bookkeeping

    def step(self, worker: int, step: Step) -> None:
        if isinstance(step, FetchRequest) and step.ahead:
            assert worker not in self.asked, "one fetch at a time"
            self.asked[worker] = None
        elif isinstance(step, Grant):
            assert step == self.asked.pop(worker)
            self.take(worker, step)
        elif isinstance(step, PushRequest):
            replica = self.lab.workers[worker].replica
            key = (worker, replica.incarnation, replica.sequence)
            assert key == step[:3]
            assert key not in self.accepted, "a push is sent once"
            self.accepted[key] = 0
            oldest = self.oldest[worker]
            assert oldest is not None
            self.arriving[key] = oldest
            self.oldest[worker] = self.fetched[worker]
            self.rounds[worker] += 1
        if isinstance(step, FetchRequest | PushRequest) and step.stopped:
            assert (worker, step.incarnation, step.stopped) in self.stopped, "nobody returns what was not stopped"
            self.stopped.remove((worker, step.incarnation, step.stopped))
            self.wasted += step.wasted

    def answered(self, worker: int, what: Answer) -> None:
        if isinstance(what, Grant):
            assert what.version == self.version, "a fetch sees the newest version, and so the worker's own pushes"
            if worker in self.asked:
                self.asked[worker] = what
            else:
                self.take(worker, what)
            if what.steps and self.algorithm.gate.holds_back and not self.killed:
                slowest = min(self.rounds[w] for w in self.lab.server.members)
                bound = getattr(self.algorithm.gate, "bound", 0)
                assert self.rounds[worker] - slowest <= bound, "nobody leads by more"
        elif isinstance(what, Stop):
            assert tuple(what) not in self.stopped, "a lease is stopped once"
            self.stopped.add(tuple(what))
        elif isinstance(what, Ack):
            key = what[:3]
            assert self.accepted[key] == 0, "a push ends once"
            if what.version == KEPT:
                return
            self.accepted[key] += 1
            oldest = self.arriving.pop(key)
            if what.version == DROPPED:
                if what.reason == Reason.LATE and isinstance(self.algorithm.gate, Whimsical):
                    self.lost += what.steps
                return
            assert what.version in (self.version, self.version + 1), "versions grow by one"
            if what.version == self.version:
                assert self.algorithm.gate.collects, "only what is collected is merged"
            self.version = what.version
            self.in_versions[worker] += what.steps
            assert what.staleness == what.version - 1 - oldest >= 0
            if self.algorithm.gate.rounds:
                assert what.staleness == 0, "nobody is stale in lock-step"

    def take(self, worker: int, grant: Grant) -> None:
        """The program has it, and goes on from that version."""
        if grant.steps:
            assert 0 < grant.steps <= self.algorithm.n_fetch
            self.fetched[worker] = grant.version
            if not self.lab.workers[worker].replica.unpushed:
                self.oldest[worker] = grant.version

    # ------------------------------------------------------------ what may happen

    @rule(draws=st.lists(st.integers(0, COUNTERS - 1), min_size=1, max_size=8))
    def turns(self, draws: list[int]) -> None:
        for draw in draws:
            ready = sorted(self.lab.ready)
            if ready:
                self.lab.turn(ready[draw % len(ready)])

    @precondition(lambda self: self.lab.workers)
    @rule(draw=st.integers(0, COUNTERS - 1))
    def die(self, draw: int) -> None:
        worker = sorted(self.lab.workers)[draw % len(self.lab.workers)]
        self.killed = True
        self.oldest[worker] = None
        self.asked.pop(worker, None)
        self.lab.kill(worker)
        self.dead.append(worker)

    @precondition(lambda self: self.next_worker < COUNTERS - 1)
    @rule()
    def join(self) -> None:
        self.rounds[self.next_worker] = min((self.rounds[w] for w in self.lab.server.members), default=0)
        self.lab.join(self.next_worker)
        self.next_worker += 1

    @precondition(lambda self: self.dead)
    @rule()
    def join_again(self) -> None:
        self.lab.join(self.dead.pop())

    @precondition(lambda self: self.lab.workers)
    @rule()
    def close(self) -> None:
        self.lab.deliver(self.lab.server.close())

    # ------------------------------------------------------------ what must hold

    @invariant()
    def work_is_neither_lost_nor_applied_twice(self) -> None:
        assert self.lab.parameters.tolist() == self.in_versions
        assert self.lab.server.minibatches == sum(self.in_versions)
        assert self.lab.server.version == self.version

    @invariant()
    def a_push_ends_at_most_once_and_only_the_waiting_are_open(self) -> None:
        open_pushes = [key for key, ended in self.accepted.items() if not ended]
        assert all(ended <= 1 for ended in self.accepted.values())
        assert set(open_pushes) == {push[:3] for push in self.lab.server.kept}

    @invariant()
    def somebody_can_go_on(self) -> None:
        assert self.lab.ready or not self.lab.workers, "deadlock"

    @invariant()
    def the_budget_is_never_exceeded(self) -> None:
        if self.budget.minibatches is not None:
            assert self.lab.server.minibatches <= self.budget.minibatches
        if self.budget.updates is not None:
            assert self.lab.server.version <= self.budget.updates

    def teardown(self) -> None:
        if not hasattr(self, "lab"):
            return
        someone = bool(self.lab.workers)
        self.lab.run()
        assert all(ended == 1 for ended in self.accepted.values()), "every accepted push ends exactly once"
        self.work_is_neither_lost_nor_applied_twice()
        server = self.lab.server
        if someone and not server.closed:
            done = server.minibatches + self.lost
            assert done == self.budget.minibatches, "whoever is left does the work of those who died or were dropped"
        assert server.wasted == self.wasted


Interleaving.TestCase.settings = settings(max_examples=200, stateful_step_count=30)
TestInterleaving = Interleaving.TestCase
