"""The server called by hand: worked stories of who is granted what, when, and of which versions come out."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgd_lab.backends.inline import Inline
from asgd_lab.errors import ProtocolError
from asgd_lab.protocol import gates, rules
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import DROPPED, Ack, Answer, FetchRequest, Grant, PushRequest
from asgd_lab.protocol.parameters import Memory, Parameters
from asgd_lab.protocol.server import Server

from .toys import Counting, built, pushed


class Desk:
    """A server with workers at it: keeps each worker's numbers, so that a test says only who does what."""

    def __init__(
        self, gate: Gate, n_fetch: int, budget: Budget, workers: int, parameters: Parameters | None = None
    ) -> None:
        self.server = Server(gate, n_fetch, budget, parameters)
        self.base: dict[int, int] = {}
        self.steps: dict[int, int] = {}
        for worker in range(workers):
            assert self.join(worker) == []

    def join(self, worker: int) -> list[str]:
        return self.tell(self.server.on_join(worker))

    def leave(self, worker: int) -> list[str]:
        return self.tell(self.server.on_leave(worker))

    def close(self) -> list[str]:
        return self.tell(self.server.close())

    def fetch(self, worker: int) -> list[str]:
        incarnation, number = 1, 1
        if worker in self.server.members:
            incarnation, number = self.server.standing(worker)[0], self.server.fetches(worker) + 1
        return self.tell(self.server.on_fetch(FetchRequest(worker, incarnation, number)))

    def push(self, worker: int, steps: int | None = None, error: float = 0.5, **wrong: int) -> list[str]:
        """Push all that was granted, or so many minibatches; `wrong` replaces what the worker should have said."""
        incarnation, sequence = self.server.standing(worker)
        right = {"incarnation": incarnation, "number": sequence + 1, "base": self.base.get(worker, 0)}
        steps = self.steps[worker] if steps is None else steps
        return self.tell(
            self.server.on_push(PushRequest(worker=worker, steps=steps, loss=0.0, error=error, **right | wrong))
        )

    def round(self, worker: int) -> list[str]:
        return self.fetch(worker) + self.push(worker)

    def tell(self, answers: list[Answer]) -> list[str]:
        """Grants as words: "WORKER reads VERSION takes STEPS", "WORKER in VERSION stale COUNT", "WORKER dropped"."""
        words = []
        for grant in answers:
            if isinstance(grant, Grant):
                self.base[grant.worker], self.steps[grant.worker] = grant.version, grant.steps
                words.append(f"{grant.worker} reads {grant.version} takes {grant.steps}")
            elif grant.version == DROPPED:
                assert grant.staleness >= 0
                words.append(f"{grant.worker} dropped")
            else:
                words.append(f"{grant.worker} in {grant.version} stale {grant.staleness}")
        return words


def minibatches(count: int) -> Budget:
    return Budget(minibatches=count)


# ---------------------------------------------------------------- asynchronous


def test_nobody_waits_for_anybody_and_staleness_counts_the_versions_in_between() -> None:
    desk = Desk(gates.asynchronous(), 2, Budget(updates=9), 3)
    assert [desk.fetch(w) for w in (0, 1, 2)] == [[f"{w} reads 0 takes 2"] for w in (0, 1, 2)]
    assert desk.push(1) == ["1 in 1 stale 0"]
    assert desk.push(0) == ["0 in 2 stale 1"]
    assert desk.fetch(1) == ["1 reads 2 takes 2"]
    assert desk.push(1) == ["1 in 3 stale 0"]
    assert desk.push(2) == ["2 in 4 stale 3"]
    assert desk.server.minibatches == 8


def test_a_fetch_sees_the_workers_own_earlier_push() -> None:
    mailboxes = {0: torch.tensor([1.0])}
    parameters = Parameters(torch.zeros(1), rules.add(), mailboxes)
    desk = Desk(gates.asynchronous(), 1, minibatches(5), 1, parameters)
    for expected in range(4):
        desk.fetch(0)
        assert parameters.vector(parameters.pinned(0)).item() == expected
        desk.push(0)


def test_a_budget_of_minibatches_is_granted_exactly_with_uneven_rounds() -> None:
    desk = Desk(gates.asynchronous(), 4, minibatches(10), 2)
    assert desk.fetch(0) == ["0 reads 0 takes 4"]
    assert desk.fetch(1) == ["1 reads 0 takes 4"]
    assert desk.push(0) == ["0 in 1 stale 0"]
    assert desk.fetch(0) == ["0 reads 1 takes 2"]
    assert desk.push(1) == ["1 in 2 stale 1"]
    assert desk.fetch(1) == [], "all is granted, but worker 0 may still die"
    assert desk.push(0) == ["0 in 3 stale 1", "1 reads 3 takes 0"]
    assert desk.fetch(0) == ["0 reads 3 takes 0"]
    assert desk.server.minibatches == 10


def test_the_share_of_a_dead_worker_falls_back_to_those_who_wait() -> None:
    desk = Desk(gates.asynchronous(), 4, minibatches(8), 2)
    desk.fetch(0)
    desk.round(1)
    assert desk.fetch(1) == []
    assert desk.leave(0) == ["1 reads 1 takes 4"]
    assert desk.push(1) == ["1 in 2 stale 0"]
    assert desk.fetch(1) == ["1 reads 2 takes 0"]
    assert desk.server.minibatches == 8


def test_the_work_of_a_worker_that_dies_before_it_hands_in_its_rest_is_done_by_whoever_is_left() -> None:
    """n_fetch 1, n_push 2: both have one unpushed minibatch when both are granted 0; then worker 0 dies."""
    lab = Inline(Counting(), built({"name": "asgd", "n_fetch": 1, "n_push": 2, "rule": ["add"]}), minibatches(2), 2)
    lab.run([0, 1, 0, 1, 0, 1])
    lab.kill(0)
    lab.run()
    assert lab.server.minibatches == 2


def test_a_lock_step_share_that_nobody_fetched_falls_back_when_its_worker_dies() -> None:
    """One minibatch for two workers is worker 0's; worker 1 asks first, is told to leave at once, and worker 0 dies."""
    lab = Inline(Counting(), built({"name": "sync_sgd", "n_sync": 1, "rule": ["add"]}), minibatches(1), 2)
    lab.turn(1)
    lab.kill(0)
    lab.run()
    assert lab.server.minibatches == 1


def test_pushes_smaller_than_a_grant_are_owed_one_by_one() -> None:
    """n_fetch 5, n_push 2: the worker pushes in the middle, and hands in the rest when it is granted nothing."""
    desk = Desk(gates.asynchronous(), 5, minibatches(5), 1)
    desk.fetch(0)
    assert desk.push(0, 2) == ["0 in 1 stale 0"]
    assert desk.push(0, 2) == ["0 in 2 stale 1"]
    assert desk.fetch(0) == ["0 reads 2 takes 0"]
    assert desk.push(0, 1) == ["0 in 3 stale 0"]
    assert desk.server.minibatches == 5


def test_a_budget_of_updates_closes_the_run_and_drops_what_comes_later() -> None:
    desk = Desk(gates.asynchronous(), 1, Budget(updates=2), 3)
    for worker in (0, 1, 2):
        desk.fetch(worker)
    desk.push(0)
    desk.push(1)
    assert desk.server.closed
    assert desk.push(2) == ["2 dropped"]
    assert desk.fetch(2) == ["2 reads 2 takes 0"]
    assert (desk.server.version, desk.server.minibatches) == (2, 2)


# ---------------------------------------------------------------- bounded staleness


def test_the_fastest_worker_waits_when_it_is_bound_rounds_ahead() -> None:
    """Ho et al. 2013; the bound counts rounds at the fetch (see gates)."""
    desk = Desk(gates.bounded_staleness(1), 1, minibatches(100), 2)
    desk.fetch(1)
    assert desk.round(0) == ["0 reads 0 takes 1", "0 in 1 stale 0"]
    assert desk.round(0) == ["0 reads 1 takes 1", "0 in 2 stale 0"], "one round ahead"
    assert desk.fetch(0) == [], "two rounds ahead"
    assert desk.push(1) == ["1 in 3 stale 2", "0 reads 3 takes 1"]


def test_bound_zero_lets_nobody_begin_a_round_before_all_have_pushed_the_one_before() -> None:
    """Ho et al. 2013."""
    desk = Desk(gates.bounded_staleness(0), 1, minibatches(100), 3)
    for worker in (2, 0, 1):
        desk.fetch(worker)
    desk.push(2)
    assert desk.fetch(2) == []
    desk.push(0)
    assert desk.fetch(0) == []
    assert desk.push(1) == ["1 in 3 stale 2", "2 reads 3 takes 1", "0 reads 3 takes 1"]


def test_the_slowest_worker_that_dies_releases_those_who_wait_for_it() -> None:
    desk = Desk(gates.bounded_staleness(0), 1, minibatches(100), 2)
    desk.fetch(1)
    desk.round(0)
    assert desk.fetch(0) == []
    assert desk.leave(1) == ["0 reads 1 takes 1"]


def test_a_joiner_starts_at_the_slowest_members_clock() -> None:
    desk = Desk(gates.bounded_staleness(0), 1, minibatches(100), 1)
    for _ in range(5):
        desk.round(0)
    desk.join(1)
    assert desk.fetch(1) == ["1 reads 5 takes 1"], "it need not catch up on five rounds"
    desk.round(0)
    assert desk.fetch(0) == [], "and it holds the others back like everybody"


# ---------------------------------------------------------------- lock-step


def lock_step(workers: int, n_fetch: int, budget: Budget, *updates: float) -> tuple[Desk, Parameters]:
    mailboxes = {worker: torch.tensor([update]) for worker, update in enumerate(updates)}
    parameters = Parameters(torch.zeros(1), rules.add(), mailboxes)
    return Desk(gates.lock_step(), n_fetch, budget, workers, parameters), parameters


@pytest.mark.parametrize("arrivals", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 0, 2)])
def test_a_round_is_summed_in_the_order_of_workers_not_of_arrival(arrivals: tuple[int, ...]) -> None:
    """In float32 (1e8 + 1) - 1e8 is 0, and (1e8 - 1e8) + 1 is 1: the order shows."""
    desk, parameters = lock_step(3, 1, minibatches(6), 1e8, 1.0, -1e8)
    told = [desk.fetch(worker) for worker in arrivals]
    assert told == [[f"{worker} reads 0 takes 1"] for worker in arrivals]
    assert [desk.push(worker) for worker in arrivals[:2]] == [[], []]
    assert desk.push(arrivals[2]) == [f"{worker} in 1 stale 0" for worker in range(3)]
    assert parameters.current.item() == 0.0
    assert desk.server.minibatches == 3


def test_those_who_are_early_wait_for_the_round_and_go_on_from_its_version() -> None:
    desk, _ = lock_step(2, 1, minibatches(100), 1.0, 2.0)
    desk.fetch(0)
    assert desk.push(0) == []
    desk.fetch(1)
    assert desk.push(1) == ["0 in 1 stale 0", "1 in 1 stale 0"]
    assert desk.fetch(1) == ["1 reads 1 takes 1"]
    assert desk.push(1) == [], "worker 0 owes this round since worker 1 asked for it"
    desk.fetch(0)
    assert desk.push(0) == ["0 in 2 stale 0", "1 in 2 stale 0"]


def test_a_dead_worker_releases_the_barrier() -> None:
    desk, parameters = lock_step(3, 1, minibatches(100), 1.0, 2.0, 4.0)
    for worker in range(3):
        desk.fetch(worker)
    desk.push(2)
    desk.push(0)
    assert desk.leave(1) == ["0 in 1 stale 0", "2 in 1 stale 0"]
    assert parameters.current.item() == 5.0
    desk.fetch(0)
    desk.fetch(2)
    assert desk.push(0) == []
    assert desk.push(2) == ["0 in 2 stale 0", "2 in 2 stale 0"], "nobody waits for the dead"


def test_a_worker_that_dies_after_its_push_is_in_the_version_all_the_same() -> None:
    desk, parameters = lock_step(2, 1, minibatches(100), 1.0, 2.0)
    desk.fetch(0)
    desk.fetch(1)
    desk.push(0)
    assert desk.leave(0) == []
    assert desk.push(1) == ["0 in 1 stale 0", "1 in 1 stale 0"]
    assert parameters.current.item() == 3.0


@pytest.mark.parametrize(
    ("left", "shares"), [(11, [4, 4, 3]), (10, [4, 3, 3]), (5, [2, 2, 1]), (2, [1, 1, 0]), (12, [4, 4, 4])]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_the_last_lock_step_round_is_shared_evenly_whoever_asks_first(
    left: int, shares: list[int], order: tuple[int, ...]
) -> None:
    desk, _ = lock_step(3, 4, minibatches(12 + left), 1.0, 1.0, 1.0)
    for worker in range(3):
        desk.fetch(worker)
    for worker in range(3):
        desk.push(worker)
    told = [line for worker in order for line in desk.fetch(worker)]
    takers = [worker for worker in order if shares[worker]]
    assert [f"{worker} reads 1 takes {shares[worker]}" for worker in takers] == [
        line for line in told if not line.endswith("takes 0")
    ]
    for worker in takers:
        told += desk.push(worker)
    told += [line for worker in takers for line in desk.fetch(worker)]
    assert {f"{worker} reads 2 takes 0" for worker in takers} <= set(told)
    assert (desk.server.minibatches, desk.server.version) == (12 + left, 2)


def test_a_worker_that_rejoins_while_its_earlier_push_is_collected_waits_for_the_next_round() -> None:
    desk, parameters = lock_step(2, 1, minibatches(100), 1.0, 2.0)
    desk.fetch(0)
    desk.fetch(1)
    desk.push(0)
    desk.leave(0)
    assert desk.join(0) == []
    assert desk.server.standing(0) == (2, 1), "the second incarnation; its pushes go on being numbered"
    assert desk.fetch(0) == [], "its earlier self has served this round"
    grants = desk.server.on_push(PushRequest(1, 1, 1, 0, 1, 0.0, 0.5))
    old = next(grant for grant in grants if isinstance(grant, Ack) and grant.worker == 0)
    assert (old.incarnation, old.number, old.version) == (1, 1, 1), "whose push it was"
    assert Grant(0, 2, 1, 1, 1, slot=parameters.pinned(0)) in grants
    desk.tell(grants)
    assert parameters.current.item() == 3.0
    desk.fetch(1)
    assert desk.push(0) == []
    assert desk.push(1) == ["0 in 2 stale 0", "1 in 2 stale 0"]


def test_a_worker_that_joins_during_a_round_takes_part_in_it() -> None:
    desk, parameters = lock_step(1, 1, minibatches(100), 1.0, 2.0)
    desk.fetch(0)
    desk.join(1)
    assert desk.push(0) == []
    assert desk.fetch(1) == ["1 reads 0 takes 1"]
    assert desk.push(1) == ["0 in 1 stale 0", "1 in 1 stale 0"]
    assert parameters.current.item() == 3.0


def test_close_drops_what_is_collected() -> None:
    desk, parameters = lock_step(3, 1, minibatches(100), 1.0, 2.0, 4.0)
    for worker in range(3):
        desk.fetch(worker)
    desk.push(0)
    desk.push(2)
    assert sorted(desk.close()) == ["0 dropped", "2 dropped"]
    assert desk.push(1) == ["1 dropped"]
    assert [desk.fetch(worker) for worker in range(3)] == [[f"{worker} reads 0 takes 0"] for worker in range(3)]
    assert (parameters.current.item(), desk.server.version, desk.server.minibatches) == (0.0, 0, 0)


def test_close_answers_those_who_wait() -> None:
    desk = Desk(gates.bounded_staleness(0), 1, minibatches(100), 2)
    desk.fetch(1)
    desk.round(0)
    desk.fetch(0)
    assert desk.close() == ["0 reads 1 takes 0"]


# ---------------------------------------------------------------- the target


def test_the_run_closes_when_the_windowed_training_error_reaches_its_target() -> None:
    desk = Desk(gates.asynchronous(), 2, Budget(target_error=0.25, target_window=4), 1)
    for error in (0.0, 0.75, 0.125):  # means over the last 4 minibatches: too few yet, 0.375, 0.4375
        desk.fetch(0)
        desk.push(0, error=error)
        assert not desk.server.closed
    desk.fetch(0)
    desk.push(0, error=0.375)  # (0.125 + 0.375) / 2 = 0.25
    assert desk.server.training_error == 0.25
    assert desk.server.closed


def test_the_window_keeps_at_least_its_minibatches_and_weighs_pushes_by_their_steps() -> None:
    desk = Desk(gates.asynchronous(), 8, Budget(target_error=0.01, target_window=5), 1)
    desk.fetch(0)
    assert desk.server.training_error != desk.server.training_error, "NaN before the first push"
    desk.push(0, 2, error=1.0)
    desk.push(0, 4, error=0.25)
    assert desk.server.training_error == (2 * 1.0 + 4 * 0.25) / 6, "without the first push only 4 would be left"
    desk.push(0, 1, error=0.5)
    assert desk.server.training_error == (4 * 0.25 + 1 * 0.5) / 5


def test_a_lock_step_round_that_reaches_the_target_is_the_last() -> None:
    desk = Desk(gates.lock_step(), 1, Budget(target_error=0.5, target_window=2), 2)
    desk.fetch(0)
    desk.fetch(1)
    desk.push(0, error=0.25)
    assert desk.push(1, error=0.5) == ["0 in 1 stale 0", "1 in 1 stale 0"]
    assert desk.server.closed


# ---------------------------------------------------------------- whose fault it is


def granted() -> Desk:
    desk = Desk(gates.asynchronous(), 3, minibatches(100), 2)
    desk.fetch(0)
    return desk


WRONG: dict[str, tuple[Callable[[Desk], object], str]] = {
    "a push of another incarnation": (lambda desk: desk.push(0, incarnation=2), "pushes as incarnation 2, not 1"),
    "a push out of sequence": (lambda desk: desk.push(0, number=2), "sends push 2, not 1"),
    "a push sent again": (lambda desk: (desk.push(0), desk.push(0, 1, number=1)), "sends push 1, not 2"),
    "more minibatches than were granted": (lambda desk: desk.push(0, 4), "pushes 4 minibatches and owes 3"),
    "a push of nothing": (lambda desk: desk.push(0, 0), "pushes 0 minibatches"),
    "a push without a fetch": (lambda desk: desk.push(1, 1), "pushes 1 minibatches and owes 0"),
    "work on a version to come": (lambda desk: desk.push(0, base=1), "on version 1 of 0"),
    "a fetch by a stranger": (lambda desk: desk.fetch(7), "worker 7 is not a member"),
    "a leave by a stranger": (lambda desk: desk.leave(7), "worker 7 is not a member"),
    "a push by the dead": (lambda desk: (desk.leave(0), desk.push(0)), "worker 0 is not a member"),
    "a second join": (lambda desk: desk.join(0), "worker 0 joins twice"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_server_refuses(what: str) -> None:
    do, message = WRONG[what]
    with pytest.raises(ProtocolError, match=message):
        do(granted())


def test_the_server_refuses_whoever_waits_for_an_answer() -> None:
    desk, _ = lock_step(2, 1, minibatches(100), 1.0, 2.0)
    desk.fetch(0)
    desk.push(0)
    with pytest.raises(ProtocolError, match="worker 0 pushes while it waits"):
        desk.push(0)
    assert desk.fetch(0) == [], "it waits for the end of its push"
    with pytest.raises(ProtocolError, match="worker 0 fetches while it waits"):
        desk.fetch(0)
    with pytest.raises(ProtocolError, match="worker 0 pushes while it waits"):
        desk.push(0)


def standing(desk: Desk) -> tuple[object, ...]:
    server = desk.server
    return server.version, server.minibatches, server.closed, [server.standing(worker) for worker in server.members]


def test_a_refused_push_changes_nothing() -> None:
    desk = granted()
    before = standing(desk)
    for what in ("a push of another incarnation", "a push out of sequence", "more minibatches than were granted"):
        with pytest.raises(ProtocolError):
            WRONG[what][0](desk)
    assert standing(desk) == before
    assert desk.push(0) == ["0 in 1 stale 0"]


# ---------------------------------------------------------------- the slots of the parameters

WORKERS = 4


class Slotted(Memory):
    def __init__(self, slot: Callable[[int], torch.Tensor]) -> None:
        self.slot = slot  # type: ignore[method-assign]


class Slots(RuleBasedStateMachine):
    """Reads, steps and deaths in any order: what is pinned stays as it was, and memory is W + 2 slots."""

    @initialize()
    def begin(self) -> None:
        self.mailboxes = {worker: torch.zeros(2) for worker in range(WORKERS)}
        self.slots: list[torch.Tensor] = []
        self.parameters = Parameters(torch.zeros(2), rules.add(), self.mailboxes, Slotted(self.slot))
        self.current = [0.0, 0.0]
        self.held: dict[int, tuple[int, list[float]]] = {}

    def slot(self, number: int) -> torch.Tensor:
        assert number == len(self.slots), "slots are numbered from 0, each made once"
        self.slots.append(torch.full((2,), torch.nan))
        return self.slots[-1]

    @rule(worker=st.integers(0, WORKERS - 1))
    def fetch(self, worker: int) -> None:
        self.parameters.pin(worker)
        self.held[worker] = (self.parameters.pinned(worker), self.current)

    @rule(worker=st.integers(0, WORKERS - 1))
    def leave(self, worker: int) -> None:
        self.parameters.unpin(worker)
        self.held.pop(worker, None)

    @rule(workers=st.sets(st.integers(0, WORKERS - 1), min_size=1), value=st.integers(-9, 9))
    def step(self, workers: set[int], value: int) -> None:
        for worker in workers:
            self.mailboxes[worker].fill_(float(value))
        self.parameters.step([pushed(worker) for worker in sorted(workers)])
        self.current = [number + value * len(workers) for number in self.current]

    @precondition(lambda self: self.held)
    @rule()
    def overwrite_what_nobody_reads(self) -> None:
        """Free slots hold nothing that anybody needs."""
        for number in self.parameters._free:
            self.slots[number].fill_(torch.nan)

    @invariant()
    def pinned_slots_are_never_rewritten(self) -> None:
        for number, content in self.held.values():
            assert self.parameters.vector(number).tolist() == content

    @invariant()
    def the_current_version_is_right(self) -> None:
        assert self.parameters.current.tolist() == self.current

    @invariant()
    def there_are_at_most_two_slots_more_than_workers(self) -> None:
        assert len(self.slots) <= WORKERS + 2

    @invariant()
    def every_slot_is_free_exactly_when_nobody_needs_it(self) -> None:
        free = self.parameters._free
        needed = {number for number, _ in self.held.values()} | {self.parameters._current}
        assert sorted(free) == sorted(set(range(len(self.slots))) - needed)


Slots.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestSlots = Slots.TestCase


@given(count=st.integers(1, 30))
def test_slots_are_recycled_when_nobody_holds_them(count: int) -> None:
    made: list[int] = []
    memory = Slotted(lambda number: made.append(number) or torch.zeros(1))
    parameters = Parameters(torch.zeros(1), rules.add(), {0: torch.ones(1)}, memory)
    for _ in range(count):
        parameters.step([pushed(0)])
    assert made == [0, 1]
    assert parameters.current.item() == count
