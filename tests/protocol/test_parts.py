"""A divided vector: hypothesis draws programs, gates, drops, stops, parts, interleavings, deaths and joins together.

Element (part, worker) of the counting task's vector is the number of the worker's minibatches in that part, so that
work which is lost or pushed twice shows as a wrong number. A merge that keeps the progress since the push is exact.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from asgd_lab.backends.inline import Inline
from asgd_lab.backends.inline_observers import Observer
from asgd_lab.errors import ProtocolError
from asgd_lab.protocol import gates
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.client import Step
from asgd_lab.protocol.effects import Fetch, Program, Push, Start, Train, Wait, lease
from asgd_lab.protocol.gates import APPLY, HOLD, KEEP, Gate, Verdict, View, drop
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import DROPPED, KEPT, Ack, Answer, FetchRequest, Join, PushRequest, Reason, Stop
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.server import Server
from asgd_lab.protocol.vectors import Anchored, Delta
from tests.backends.stopping import Impatient

from .toys import Counting, CountingLearner, built

WORKERS = 4


def drawn(sides: int, *what: int) -> int:
    return zlib.crc32(repr(what).encode()) % sides


class Divided(Counting):
    """The counting task with a counter for each part and worker."""

    def __init__(self, parts: int) -> None:
        self.parts, self.size = parts, parts * WORKERS
        self.size_bytes = 4 * self.size

    def initial(self) -> Tensor:
        return torch.zeros(self.size)

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> CountingLearner:
        return Everywhere(worker, params, gradients)


class Everywhere(CountingLearner):
    def minibatch(self, step: int) -> tuple[float, float]:
        self.steps.append(step)
        self.params[self.worker :: WORKERS] += 1.0
        if self.gradients is not None:
            self.gradients[self.worker :: WORKERS] -= 1.0
        return 1.0, 0.5


class Whimsical(Gate):
    """Does anything that a gate may do to a part, as the numbers of pushes and versions have it."""

    seed: int
    collects = True
    keeps = 64

    def lease(self, worker: int, server: View) -> int:
        return 1 + drawn(server.n_fetch, self.seed, worker, server.version)

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        some = [APPLY, HOLD, KEEP, drop(Reason.STALE), drop(Reason.LATE, returns=False)]
        return some[drawn(len(some), self.seed, push.worker, push.number, push.base, server.part)]

    def complete(self, server: View) -> bool:
        return drawn(3, self.seed, server.version, len(server.kept), server.part) == 0

    def stops(self, server: View) -> Iterable[int]:
        return [each for each in server.owing if drawn(4, self.seed, each, server.version, server.part) == 0]


def fragments(replica: Replica, seed: int) -> Program:
    """Trains, pushes, fetches, merges and leases in an order that the seed decides, and pushes all work at the end."""
    parts = range(len(replica.parts))
    train, ask = Train(replica), lease(replica)
    pushes = [Push(replica, part=part) for part in parts]
    fetches = [Fetch(replica, part, lease=False) for part in parts]
    sent: set[int] = set()
    asked: set[int] = set()
    yield Fetch(replica)
    replica.adopt()
    for move in range(10_000):
        part = drawn(len(parts), seed, move, replica.worker, 0)
        action = drawn(6, seed, move, replica.worker, 1)
        if action == 0 and replica.granted:
            replica.steps = 1 + drawn(replica.granted, seed, move)
            yield train
        elif action == 1 and replica.parts[part].unpushed and part not in sent:
            replica.measure(part)
            yield Start(pushes[part])
            sent.add(part)
        elif action == 2:
            yield Wait(pushes[part])
            sent.discard(part)
        elif action == 3 and part not in asked:
            yield Start(fetches[part])
            asked.add(part)
        elif action == 4 and part in asked and part not in sent:
            yield Wait(fetches[part])
            asked.discard(part)
            if replica.parts[part].unpushed:
                continue  # work before the fetch would be lost with a merge of what came since the push alone
            replica.merge(part, own=0.0, center=1.0, progress=1.0)
        elif action == 5 and not replica.granted:
            yield ask
            if replica.granted:
                continue
            left = False
            for part in parts:
                yield Wait(pushes[part])
                yield Wait(fetches[part])
                if replica.parts[part].unpushed:
                    left = True
                    replica.measure(part)
                    yield pushes[part]
            sent.clear()
            asked.clear()
            if not left:
                return


class Books(Observer):
    """The independent bookkeeping."""

    def __init__(self, parts: int) -> None:
        self.sent: dict[tuple[int, int, int, int], PushRequest] = {}
        self.ended: Counter[tuple[int, int, int, int]] = Counter()
        self.inside = torch.zeros(parts * WORKERS)
        self.versions = [0] * parts
        self.counted = self.lost = self.wasted = 0
        self.stopped: set[tuple[int, ...]] = set()  # leases whose stop was not reported yet

    def step(self, worker: int, step: Step) -> None:
        if isinstance(step, FetchRequest | PushRequest) and step.stopped:
            self.stopped.remove((worker, step.incarnation, step.stopped))
            self.wasted += step.wasted
        if isinstance(step, PushRequest):
            key = (*step[:3], step.part)
            assert key not in self.sent, "a part's push is sent once"
            self.sent[key] = step

    def answered(self, worker: int, answer: Answer) -> None:
        if isinstance(answer, Stop):
            self.stopped.add(tuple(answer))
        if not isinstance(answer, Ack) or answer.version == KEPT:
            return
        key = (*answer[:3], answer.part)
        self.ended[key] += 1
        assert self.ended[key] == 1, "a part's push ends once"
        push = self.sent[key]
        if answer.version == DROPPED:
            if answer.reason == Reason.LATE:
                self.lost += answer.steps
            return
        assert answer.version - self.versions[answer.part] in (0, 1), "versions of each part grow by one"
        self.versions[answer.part] = answer.version
        assert answer.staleness == answer.version - 1 - push.base >= 0
        self.inside[answer.part * WORKERS + answer.worker] += push.steps
        self.counted += answer.steps


@st.composite
def divided(draw: st.DrawFn) -> tuple[Algorithm, int]:
    parts = draw(st.integers(1, 3))
    name = draw(st.sampled_from(["asgd", "downpour", "fragments", "fragments"]))
    keys = {"name": "asgd" if name == "fragments" else name, "rule": ["add"]}
    keys |= {"n_fetch": draw(st.integers(1, 5)), "n_push": draw(st.integers(1, 5))}
    if name == "downpour":
        keys["depth"] = draw(st.integers(1, 3))
    algorithm = replace(built(keys), parts=parts)
    whims = [st.just(gates.asynchronous()), st.builds(Whimsical, st.integers(0, 1000))]
    if name == "fragments":
        seed = draw(st.integers(0, 10_000))
        algorithm = replace(algorithm, program=lambda replica: fragments(replica, seed), vectors=Anchored)
    # A worker of fragments is stopped by its own push to part 0 too: patience 0 would leave it no minibatch.
    whims.append(st.builds(Impatient, st.integers(2 if name == "fragments" else 0, 4)))
    if algorithm.depth > 1:
        del whims[1]  # a worker with a held push may not push again
    return replace(algorithm, gate=draw(st.one_of(whims))), parts


moves = st.lists(st.integers(0, 99), max_size=120)


@settings(max_examples=300)
@given(divided(), st.integers(1, 3), st.integers(1, 60), moves)
def test_every_push_of_a_part_ends_once_and_the_budget_is_exact(
    drawn: tuple[Algorithm, int], workers: int, minibatches: int, moves: list[int]
) -> None:
    algorithm, parts = drawn
    books = Books(parts)
    lab = Inline(Divided(parts), algorithm, Budget(minibatches=minibatches), workers, observer=books)
    server, next_worker, dead = lab.server, workers, []

    def check() -> None:
        assert torch.equal(lab.parameters, books.inside), "work is neither lost nor applied twice"
        assert [at.version for at in server.parts] == books.versions
        assert server.minibatches == books.counted <= minibatches
        assert {(*push[:3], push.part) for push in server.kept} >= {
            key for key in books.sent if not books.ended[key] and key[0] in lab.workers
        }, "only pushes that wait to be merged are open"
        assert lab.ready or not lab.workers, "deadlock"

    for move in moves:
        if move == 99 and next_worker < WORKERS:
            lab.join(next_worker)
            next_worker += 1
        elif move == 98 and dead:
            lab.join(dead.pop())
        elif move >= 96 and lab.workers:
            dead.append(sorted(lab.workers)[move % len(lab.workers)])
            lab.kill(dead[-1])
        elif lab.ready:
            lab.turn(sorted(lab.ready)[move % len(lab.ready)])
        check()
    someone = bool(lab.workers)
    lab.run()
    check()
    assert all(books.ended[key] == 1 for key in books.sent)
    assert server.wasted == books.wasted
    if someone:
        assert server.minibatches + books.lost == minibatches, "whoever is left does the work of those who died"


@settings(max_examples=60)
@given(divided(), st.integers(1, 12), moves)
def test_a_push_that_part_0_has_applied_is_applied_to_all_parts_though_the_run_is_closed(
    drawn: tuple[Algorithm, int], updates: int, moves: list[int]
) -> None:
    algorithm, parts = drawn
    algorithm = replace(algorithm, gate=gates.asynchronous())
    if algorithm.vectors is Anchored:
        return  # fragments are pushes of their own
    books = Books(parts)
    lab = Inline(Divided(parts), algorithm, Budget(updates=updates), 3, observer=books)
    for move in moves:
        if lab.ready:
            lab.turn(sorted(lab.ready)[move % len(lab.ready)])
    lab.run()
    assert books.versions[0] == updates == min(books.versions), "another part may have applied one that came too late"
    by_part = lab.parameters.view(parts, WORKERS)
    assert bool((by_part >= by_part[:1]).all())


def test_parts_apply_the_same_pushes_in_orders_of_their_own() -> None:
    algorithm = replace(built({"name": "asgd", "n_sync": 1, "rule": ["add"]}), parts=2)
    order: list[tuple[int, int]] = []

    class Orders(Observer):
        def answered(self, worker: int, answer: Answer) -> None:
            if isinstance(answer, Ack):
                order.append((answer.part, worker))

    lab = Inline(Divided(2), algorithm, Budget(minibatches=2), 2, observer=Orders())
    for _ in range(9):
        for worker in sorted(lab.ready):
            lab.turn(worker)
    assert order == [(0, 0), (1, 1), (1, 0), (0, 1)], "workers begin with different parts"


def test_a_lease_alone_brings_minibatches_and_no_parameters() -> None:
    server = Server(gates.asynchronous(), 3, Budget(minibatches=5))
    server.hear(Join(0))
    asked = FetchRequest(0, 1, 1, part=lease(Replica(0)).part)
    [grant] = server.hear(asked)
    assert (grant.steps, grant.slot, server.member(0).owed) == (3, -1, 3)  # type: ignore[union-attr]
    [more] = server.hear(asked._replace(number=2))
    assert more.steps == 2, "the rest of the budget"
    [parameters] = server.hear(FetchRequest(0, 1, 3, lease=False))
    assert (parameters.steps, parameters.slot, server.member(0).owed) == (0, 0, 5)  # type: ignore[union-attr]


def test_a_fetch_of_a_part_waits_for_the_end_of_a_held_push_to_it_alone() -> None:
    class Pair(Gate):
        collects = True

        def on_push(self, push: PushRequest, server: View) -> Verdict:
            return HOLD

        def complete(self, server: View) -> bool:
            return len(server.kept) == 2

    server = Server(Pair(), 4, Budget(), parts=2)
    for worker in range(2):
        server.hear(Join(worker))
        server.hear(FetchRequest(worker, 1, 1, part=0))
    assert server.hear(PushRequest(0, 1, 1, 0, 4, 0.0, 0.0, part=1)) == []
    assert server.hear(FetchRequest(0, 1, 2, True, 1, lease=False)) == [], "its push to part 1 is held"
    [other] = server.hear(FetchRequest(0, 1, 3, True, 0, lease=False))
    assert other.part == 0
    ends = server.hear(PushRequest(1, 1, 1, 0, 4, 0.0, 0.0, part=1))
    assert [(type(end).__name__, end.worker, end.version) for end in ends] == [  # type: ignore[union-attr]
        ("Ack", 0, 1), ("Ack", 1, 1), ("Grant", 0, 1),
    ]  # fmt: skip
    assert [at.version for at in server.parts] == [0, 1]
    assert [end.steps for end in ends[:2]] == [0, 0], "counted when part 0 has come too"  # type: ignore[union-attr]


def test_more_than_was_leased_is_refused_for_each_part() -> None:
    server = Server(gates.asynchronous(), 4, Budget(), parts=2)
    server.hear(Join(0))
    server.hear(FetchRequest(0, 1, 1, part=0))
    server.hear(PushRequest(0, 1, 1, 0, 3, 0.0, 0.0, part=1))
    with pytest.raises(ProtocolError, match="pushes 2 minibatches and owes 1"):
        server.hear(PushRequest(0, 1, 2, 0, 2, 0.0, 0.0, part=1))
    with pytest.raises(ProtocolError, match="a gate of rounds"):
        Server(gates.lock_step(), 4, Budget(), parts=2)


def test_a_stop_voids_in_each_part_what_was_not_pushed_to_it() -> None:
    """Four minibatches, of which part 0 was pushed; then two more, and the stop comes in the next Train's second."""
    replica = Replica(0, Anchored(torch.zeros(2), torch.zeros(2), torch.zeros(2)), parts=2)
    assert replica.vectors is not None
    replica.grant_part(0, 0, 10, lease=True)
    replica.adopt()
    for steps, part in ((4, 0), (2, None)):
        replica.steps = steps
        replica.vectors.params += steps
        replica.trained(0.0, 0.0)
        if part is not None:
            replica.measure(part)
    replica.vectors.params += 1
    replica.steps = 2
    assert replica.stopped(1) == (7, 10), "no minibatch was pushed to both parts"
    assert replica.vectors.params.tolist() == [4.0, 0.0], "each part is at its anchor again"
    assert [place.unpushed for place in replica.parts] == [0, 0]
    assert (replica.granted, replica.minibatches) == (0, 7)


def _stopped_between_parts() -> Server:
    """A server that leased 8 minibatches, and has heard of 3 of them in part 1 alone, of 2 in both."""
    server = Server(gates.asynchronous(), 8, Budget(minibatches=10), parts=2)
    server.hear(Join(0))
    server.hear(FetchRequest(0, 1, 1, part=0))
    server.hear(PushRequest(0, 1, 1, 0, 5, 0.0, 0.0, part=1))
    server.hear(PushRequest(0, 1, 2, 0, 2, 0.0, 0.0, part=0))
    assert (server.minibatches, server.member(0).owed) == (2, 6)
    return server


def test_minibatches_that_a_stop_leaves_in_some_parts_count_for_none_and_are_leased_again() -> None:
    server = _stopped_between_parts()
    [grant] = server.hear(FetchRequest(0, 1, 2, part=0, stopped=1, wasted=4, returned=6))
    assert grant.steps == 8, "the 2 that were left, and 6"  # type: ignore[union-attr]
    server.hear(PushRequest(0, 1, 3, 0, 8, 0.0, 0.0, part=1))
    assert server.minibatches == 2, "part 0 has only the 2 of before"
    server.hear(PushRequest(0, 1, 4, 0, 8, 0.0, 0.0, part=0))
    assert (server.minibatches, server.finished, server.wasted, server.taken(0)) == (10, True, 4, 14)


def test_a_push_may_report_a_stop_where_the_next_lease_was_asked_ahead() -> None:
    server = _stopped_between_parts()
    server.hear(FetchRequest(0, 1, 2, True, part=0))
    push = PushRequest(0, 1, 3, 0, 2, 0.0, 0.0, part=1, stopped=1, wasted=4, returned=6)
    [ack] = server.hear(push)
    assert (ack.steps, server.member(0).owed, server.minibatches) == (0, 2, 2)  # type: ignore[union-attr]
    with pytest.raises(ProtocolError, match="pushes 1 minibatches and owes 0"):
        server.hear(push._replace(number=4, steps=1, stopped=0, wasted=0, returned=0))
    server.hear(push._replace(number=5, part=0, stopped=0, wasted=0, returned=0))
    assert server.minibatches == 4


def test_a_part_that_is_not_there_and_vectors_without_parts_are_told() -> None:
    replica = Replica(0, Delta(torch.zeros(4), torch.zeros(4), torch.zeros(4)), parts=2)
    replica.granted = replica.steps = 1
    replica.trained(0.0, 0.0)
    with pytest.raises(ProtocolError, match="names part 2, and the vector has 2 parts"):
        replica.measure(2)
    with pytest.raises(ProtocolError, match="Delta has no updates of single parts; use Anchored"):
        replica.measure(1)
    with pytest.raises(ProtocolError, match="names part 0, and the vector is undivided"):
        Replica(0).merge(0, own=0.0, center=1.0)


def _fragments_of(workers: Iterable[int], parts: int, own: float, center: float, progress: float) -> Tensor:
    replica = Replica(0, Anchored(torch.tensor([1.0] * parts), torch.zeros(parts), torch.zeros(parts)), parts=parts)
    replica.adopt()  # params, anchor <- 0
    assert replica.vectors is not None
    replica.vectors.params.fill_(1.0)
    replica.granted = replica.steps = 4
    replica.trained(0.0, 0.0)
    for part in workers:
        replica.measure(part)
    replica.vectors.params.add_(0.5)  # progress since the push
    for part in workers:
        replica.receive(part, torch.tensor([8.0]))
        replica.merge(part, own, center, progress)
    return replica.vectors.params


@pytest.mark.parametrize(
    ("own", "center", "progress", "expected"),
    [(0.0, 1.0, 0.0, 8.0), (0.5, 0.5, 0.0, 4.75), (0.0, 1.0, 1.0, 8.5), (1.0, 0.0, 0.0, 1.5)],
)
def test_a_merge_weighs_own_parameters_center_and_progress(
    own: float, center: float, progress: float, expected: float
) -> None:
    assert _fragments_of([1], 2, own, center, progress).tolist() == [1.5, expected], "one part alone"
