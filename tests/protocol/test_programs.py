"""Worker programs driven bare, by next: what they want, in which order, and what their vectors then hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from asgd_lab.protocol import rules
from asgd_lab.protocol.effects import Effect, Fetch, Program, Push, Start, Train, Wait
from asgd_lab.protocol.programs import coupled, overlapped, uncoupled
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.vectors import AnchoredDelta, Delta, GradientSum, Vectors

from .toys import built


class Grants:
    """The smallest backend: answers fetches from a list, then with 0; trains by `train`, and writes down what it saw.

    A line of the story is "fetch VERSION:STEPS", "train STEPS" or "push STEPS on BASE".
    """

    def __init__(self, replica: Replica, program: Program, grants: Sequence[tuple[int, int]]) -> None:
        self.replica, self.program = replica, program
        self._grants: Iterator[tuple[int, int]] = iter(grants)
        self.version = 0
        self.story: list[str] = []

    def run(self, effects: int | None = None) -> list[str]:
        """Interpret so many effects, or all until the program ends."""
        done = 0
        while done != effects:
            effect = next(self.program, None)
            if effect is None:
                break
            self.interpret(effect)
            done += 1
        return self.story

    def interpret(self, effect: Effect) -> None:
        replica = self.replica
        assert not isinstance(effect, Train | Fetch | Push) or effect.replica is replica
        if isinstance(effect, Fetch):
            self.version, steps = next(self._grants, (self.version, 0))
            replica.grant(self.version, steps)
            self.story.append(f"fetch {self.version}:{steps}")
        elif isinstance(effect, Train):
            self.story.append(f"train {replica.steps}")
            self.train()
            replica.trained(float(replica.steps), 0.5 * replica.steps)
        else:
            assert isinstance(effect, Push)
            arrived = replica.arriving()
            self.story.append(f"push {arrived.steps} on {arrived.base}")
            self.pushed()

    def train(self) -> None:
        """Nothing; a test with vectors does it."""

    def pushed(self) -> None:
        """Nothing."""


def story(n_push: int | None, grants: Sequence[tuple[int, int]]) -> list[str]:
    replica = Replica(3)
    program = coupled(replica) if n_push is None else uncoupled(replica, n_push)
    return Grants(replica, program, grants).run()


def test_the_coupled_program_fetches_trains_and_pushes_until_it_is_granted_nothing() -> None:
    assert story(None, [(0, 5), (7, 5)]) == [
        *("fetch 0:5", "train 5", "push 5 on 0"),
        *("fetch 7:5", "train 5", "push 5 on 7"),
        "fetch 7:0",
    ]


def test_the_coupled_program_trains_a_shortened_last_round_and_pushes_it() -> None:
    assert story(None, [(0, 5), (4, 2)])[3:] == ["fetch 4:2", "train 2", "push 2 on 4", "fetch 4:0"]


def test_a_program_that_is_granted_nothing_at_once_pushes_nothing() -> None:
    assert story(None, []) == ["fetch 0:0"]
    assert story(3, []) == ["fetch 0:0"]


def test_fetching_more_often_than_pushing_keeps_the_oldest_center_as_the_base() -> None:
    """n_fetch 2, n_push 6: DistBelief's Algorithm 1.1 with n_fetch < n_push."""
    assert story(6, [(0, 2), (1, 2), (3, 2), (4, 2), (9, 2)]) == [
        *("fetch 0:2", "train 2", "fetch 1:2", "train 2", "fetch 3:2", "train 2", "push 6 on 0"),
        *("fetch 4:2", "train 2", "fetch 9:2", "train 2"),
        *("fetch 9:0", "push 4 on 4", "fetch 9:0"),
    ]


def test_pushing_more_often_than_fetching_trains_on_from_its_own_parameters() -> None:
    """n_fetch 6, n_push 2: DistBelief's Algorithm 1.1 with n_fetch > n_push."""
    assert story(2, [(0, 6), (8, 6)]) == [
        *("fetch 0:6", "train 2", "push 2 on 0", "train 2", "push 2 on 0", "train 2", "push 2 on 0"),
        *("fetch 8:6", "train 2", "push 2 on 8", "train 2", "push 2 on 8", "train 2", "push 2 on 8"),
        "fetch 8:0",
    ]


def test_a_push_interval_that_is_no_multiple_straddles_fetches() -> None:
    """n_fetch 3, n_push 2: pushes after minibatches 2, 4, 6; fetches after 3, 6. The second push began on center 0."""
    assert story(2, [(0, 3), (5, 3), (9, 3)]) == [
        *("fetch 0:3", "train 2", "push 2 on 0", "train 1"),
        *("fetch 5:3", "train 1", "push 2 on 0", "train 2", "push 2 on 5"),
        *("fetch 9:3", "train 2", "push 2 on 9", "train 1"),
        *("fetch 9:0", "push 1 on 9", "fetch 9:0"),
    ]


def test_a_fetch_interval_that_is_no_multiple_straddles_pushes() -> None:
    """n_fetch 2, n_push 3: after the push in mid-round, work goes on from the center that is still held."""
    assert story(3, [(0, 2), (5, 2), (6, 2)]) == [
        *("fetch 0:2", "train 2"),
        *("fetch 5:2", "train 1", "push 3 on 0", "train 1"),
        *("fetch 6:2", "train 2", "push 3 on 5"),
        "fetch 6:0",
    ]


def test_a_shortened_last_round_is_handed_in_at_the_end() -> None:
    assert story(4, [(0, 4), (2, 1)])[-3:] == ["fetch 2:0", "push 1 on 2", "fetch 2:0"]


@given(n_fetch=st.integers(1, 9), n_push=st.integers(1, 9), budget=st.integers(1, 60))
def test_pushes_are_of_n_push_minibatches_and_all_of_them_arrive(n_fetch: int, n_push: int, budget: int) -> None:
    grants = [(done, min(n_fetch, budget - done)) for done in range(0, budget, n_fetch)]
    pushed = [int(line.split()[1]) for line in story(n_push, grants) if line.startswith("push")]
    whole, rest = divmod(budget, n_push)
    assert pushed == [n_push] * whole + [rest] * (rest > 0)


def test_a_program_started_on_a_filled_replica_goes_on() -> None:
    """All that outlives a round is in the replica: a new generator at a fetch continues what the old one began."""
    grants = [(0, 3), (5, 3), (9, 3)]
    whole = story(2, grants)
    between_rounds = [at for at, line in enumerate(whole) if line.startswith("fetch")]
    assert len(between_rounds) == 5
    for at in between_rounds:
        replica = Replica(3)
        first = Grants(replica, uncoupled(replica, 2), grants)
        first.run(at)
        second = Grants(replica, uncoupled(replica, 2), list(first._grants))
        second.version = first.version
        assert first.story + second.run() == whole


def test_a_restarted_worker_continues_its_counts() -> None:
    replica = Replica(2)
    replica.incarnation, replica.sequence, replica.minibatches = 3, 7, 70
    grants = Grants(replica, coupled(replica), [(41, 10)])
    grants.run()
    arrived = replica.arriving()
    assert (arrived.worker, arrived.incarnation, arrived.number, arrived.base, arrived.steps) == (2, 3, 8, 41, 10)
    assert (arrived.loss, arrived.error) == (1.0, 0.5), "means over the minibatches of this push alone"
    assert replica.minibatches == 80


def test_the_local_optimizer_hears_of_every_fetch_that_grants_something() -> None:
    resets: list[int] = []
    replica = Replica(0, after_adopt=lambda: resets.append(replica.version))
    Grants(replica, coupled(replica), [(0, 5), (7, 5)]).run()
    assert resets == [0, 7]


# ---------------------------------------------------------------- overlap


class Ahead(Grants):
    """A backend where what is started is done when it is waited for, and not earlier.

    Its story has "ask" and "receive VERSION:STEPS", "send STEPS on BASE from BUFFER" and "free BUFFER". While a push is
    under way its buffer stays as it is.
    """

    def __init__(self, replica: Replica, program: Program, grants: Sequence[tuple[int, int]], *more: Any) -> None:
        super().__init__(replica, program, grants, *more)
        self.asked = False
        self.sent: dict[int, Tensor | None] = {}
        self.most = 0  # pushes under way at once

    def interpret(self, effect: Effect) -> None:
        if isinstance(effect, Start) and isinstance(effect.effect, Fetch):
            assert not self.asked
            self.asked = True
            self.story.append("ask")
        elif isinstance(effect, Wait) and isinstance(effect.effect, Fetch):
            if self.asked:
                self.asked = False
                super().interpret(effect.effect)
                self.story[-1] = self.story[-1].replace("fetch", "receive")
        elif isinstance(effect, Start):
            buffer = effect.effect.buffer
            assert buffer not in self.sent, "a buffer carries one push at a time"
            super().interpret(effect.effect)
            self.story[-1] = self.story[-1].replace("push", "send") + f" from {buffer}"
            self.sent[buffer] = self.replica.updates[buffer].clone() if self.replica.updates else None
            self.most = max(self.most, len(self.sent))
        elif isinstance(effect, Wait):
            buffer = effect.effect.buffer
            if buffer in self.sent:
                self.story.append(f"free {buffer}")
                self.freed(buffer, self.sent.pop(buffer))
        else:
            super().interpret(effect)

    def freed(self, buffer: int, sent: Tensor | None) -> None:
        """Nothing to look at."""


def overlapped_story(n_push: int, depth: int, grants: Sequence[tuple[int, int]]) -> Ahead:
    replica = Replica(3)
    ahead = Ahead(replica, overlapped(replica, n_push, depth), grants)
    ahead.run()
    assert not ahead.asked
    assert not ahead.sent, "a worker leaves when its last push is done"
    return ahead


def test_the_overlapped_program_asks_before_it_trains_and_sends_without_waiting() -> None:
    assert overlapped_story(2, 1, [(0, 2), (1, 2), (3, 2)]).story == [
        *("fetch 0:2", "ask", "train 2", "send 2 on 0 from 0", "receive 1:2"),
        *("ask", "train 2", "free 0", "send 2 on 1 from 0", "receive 3:2"),
        *("ask", "train 2", "free 0", "send 2 on 3 from 0", "receive 3:0"),
        *("free 0", "fetch 3:0"),
    ]


def test_pushes_take_turns_with_as_many_buffers_as_the_depth() -> None:
    story = overlapped_story(1, 3, [(0, 5)]).story
    assert [line for line in story if line.startswith(("send", "free"))] == [
        *("send 1 on 0 from 0", "send 1 on 0 from 1", "send 1 on 0 from 2"),
        *("free 0", "send 1 on 0 from 0", "free 1", "send 1 on 0 from 1"),
        *("free 0", "free 1", "free 2"),
    ]


def test_who_is_granted_nothing_ahead_hands_in_the_rest_and_asks_once_more_with_nothing_under_way() -> None:
    """The server may let that fetch wait until somebody else is done, and takes no push from who waits."""
    assert overlapped_story(2, 2, [(0, 3), (4, 0), (6, 1)]).story == [
        *("fetch 0:3", "ask", "train 2", "send 2 on 0 from 0", "train 1", "receive 4:0", "send 1 on 0 from 1"),
        *("free 0", "free 1", "fetch 6:1", "ask", "train 1", "receive 6:0", "send 1 on 6 from 0"),
        *("free 0", "fetch 6:0"),
    ]


@given(n_fetch=st.integers(1, 9), n_push=st.integers(1, 9), depth=st.integers(1, 3), budget=st.integers(1, 60))
def test_overlapped_pushes_are_of_n_push_minibatches_and_all_of_them_arrive(
    n_fetch: int, n_push: int, depth: int, budget: int
) -> None:
    grants = [(done, min(n_fetch, budget - done)) for done in range(0, budget, n_fetch)]
    ahead = overlapped_story(n_push, depth, grants)
    sent = [int(line.split()[1]) for line in ahead.story if line.startswith("send")]
    whole, rest = divmod(budget, n_push)
    assert sent == [n_push] * whole + [rest] * (rest > 0)
    assert ahead.most <= depth


# ---------------------------------------------------------------- vectors


class Local(Grants):
    """Training moves the parameters by drawn integers, so that float32 sums are exact; centers are drawn too."""

    def __init__(
        self, replica: Replica, program: Program, grants: Sequence[tuple[int, int]], source: torch.Generator
    ) -> None:
        super().__init__(replica, program, grants)
        assert replica.vectors is not None
        self.vectors: Vectors = replica.vectors
        self.source = source
        self.changed = torch.zeros_like(self.vectors.params)
        self.sum_pushed = torch.zeros_like(self.vectors.params)

    def integers(self) -> Tensor:
        return torch.randint(-99, 100, self.vectors.params.shape, generator=self.source).float()

    def interpret(self, effect: Effect) -> None:
        super().interpret(effect)
        if isinstance(effect, Fetch):
            self.vectors.center = self.integers()

    def train(self) -> None:
        for _ in range(self.replica.steps):
            change = self.integers()
            self.vectors.params += change
            self.changed += change
            if isinstance(self.vectors, GradientSum):
                self.vectors.gradients -= change

    def pushed(self) -> None:
        self.sum_pushed += self.vectors.update
        self.vectors.update.fill_(float("nan"))  # the mailbox is somebody else's until the next measure


def local_run(vectors: type, n_push: int | None, grants: list[tuple[int, int]], seed: int) -> Local:
    params, update = torch.zeros(3), torch.full((3,), float("nan"))
    replica = Replica(0, vectors(params, params, update))
    program = coupled(replica) if n_push is None else uncoupled(replica, n_push)
    local = Local(replica, program, grants, torch.Generator().manual_seed(seed))
    local.run()
    return local


interval = st.integers(1, 7)


@given(n_fetch=interval, n_push=interval, rounds=st.integers(1, 8), last=st.integers(1, 7), seed=st.integers(0, 999))
@settings(max_examples=80)
def test_anchored_deltas_telescope(n_fetch: int, n_push: int, rounds: int, last: int, seed: int) -> None:
    """The pushed deltas sum to the local changes: nothing is lost at a fetch, nothing is pushed twice."""
    grants = [(version, n_fetch) for version in range(rounds)] + [(rounds, min(last, n_fetch))]
    local = local_run(AnchoredDelta, n_push, grants, seed)
    assert torch.equal(local.sum_pushed, local.changed)


@given(n_fetch=interval, n_push=interval, rounds=st.integers(1, 8), seed=st.integers(0, 999))
@settings(max_examples=50)
def test_pushed_gradients_sum_to_all_gradients(n_fetch: int, n_push: int, rounds: int, seed: int) -> None:
    local = local_run(GradientSum, n_push, [(version, n_fetch) for version in range(rounds)], seed)
    assert torch.equal(local.sum_pushed, -local.changed)


@given(grants=st.lists(interval, min_size=1, max_size=8), seed=st.integers(0, 999))
@settings(max_examples=30)
def test_coupled_deltas_sum_to_the_local_changes(grants: list[int], seed: int) -> None:
    for vectors in (Delta, AnchoredDelta):
        local = local_run(vectors, None, list(enumerate(grants)), seed)
        assert torch.equal(local.sum_pushed, local.changed)


class Meanwhile(Ahead, Local):
    """Local training with pushes under way: what is sent stays in its buffer until that is freed."""

    def pushed(self) -> None:
        self.sum_pushed += self.replica.updates[self.replica_buffer()]

    def replica_buffer(self) -> int:
        """Where the update lies that is about to be sent."""
        return next(index for index, each in enumerate(self.replica.updates) if each is self.vectors.update)

    def freed(self, buffer: int, sent: Tensor | None) -> None:
        assert sent is not None
        assert torch.equal(self.replica.updates[buffer], sent), "nobody wrote into it while it was under way"
        self.replica.updates[buffer].fill_(float("nan"))


@given(
    n_fetch=interval,
    n_push=interval,
    depth=st.integers(1, 3),
    rounds=st.integers(1, 8),
    last=st.integers(1, 7),
    vectors=st.sampled_from([AnchoredDelta, GradientSum]),
    seed=st.integers(0, 999),
)
@settings(max_examples=80)
def test_what_is_pushed_from_several_buffers_sums_to_all_local_changes(
    n_fetch: int, n_push: int, depth: int, rounds: int, last: int, vectors: type, seed: int
) -> None:
    grants = [(version, n_fetch) for version in range(rounds)] + [(rounds, min(last, n_fetch))]
    buffers = [torch.full((3,), float("nan")) for _ in range(depth)]
    params = torch.zeros(3)
    replica = Replica(0, vectors(params, params, buffers[0]), updates=buffers)
    program = overlapped(replica, n_push, depth)
    local = Meanwhile(replica, program, grants, torch.Generator().manual_seed(seed))
    local.run()
    assert torch.equal(local.sum_pushed, local.changed if vectors is AnchoredDelta else -local.changed)


def test_a_delta_is_what_changed_since_the_fetch() -> None:
    params, center, update = torch.tensor([9.0]), torch.tensor([1.0]), torch.tensor([float("nan")])
    vectors = Delta(params, center, update)
    vectors.adopt(pending=False)
    assert params.item() == 1.0
    params += 0.5
    vectors.measure()
    assert (update.item(), center.item(), params.item()) == (0.5, 1.0, 1.5)


def test_a_fetch_between_two_pushes_folds_the_work_before_it() -> None:
    params, center, update = torch.zeros(1), torch.zeros(1), torch.tensor([float("nan")])
    vectors = AnchoredDelta(params, center, update)
    vectors.adopt(pending=False)
    params += 3.0
    vectors.center = torch.tensor([100.0])
    vectors.adopt(pending=True)
    assert params.item() == 100.0
    params += 0.5
    vectors.measure()
    assert update.item() == 3.5
    params += 0.25  # after a push in mid-round the anchor is where the replica stood
    vectors.measure()
    assert update.item() == 0.25


def test_gradients_that_are_not_pushed_survive_a_fetch() -> None:
    vectors = GradientSum(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    vectors.adopt(pending=False)
    vectors.gradients += 2.0
    vectors.adopt(pending=True)
    vectors.gradients += 1.0
    vectors.measure()
    assert (vectors.update.item(), vectors.gradients.item()) == (3.0, 0.0)


@pytest.mark.parametrize(
    ("n_fetch", "n_push", "pushes", "vectors"),
    [(4, 4, "delta", Delta), (4, 2, "delta", AnchoredDelta), (4, 4, "gradient", GradientSum)],
)
def test_an_algorithm_chooses_the_vectors_that_its_rhythm_needs(
    n_fetch: int, n_push: int, pushes: rules.Kind, vectors: type
) -> None:
    rule = ["add"] if pushes == "delta" else [{"name": "sgd", "lr": 0.1}]
    asgd = {"name": "asgd", "n_fetch": n_fetch, "n_push": n_push, "rule": rule, "push": pushes}
    assert built(asgd).vectors is vectors
