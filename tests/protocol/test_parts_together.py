"""Gates that hold, keep and drop the parts of one push; fetches of parameters alone that wait; stops that are due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol import gates, programs
from asgd_lab.protocol.effects import Fetch
from asgd_lab.protocol.gates import APPLY, HOLD, KEEP, Gate, Verdict, View
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import NO_PART, Ack, FetchRequest, Grant, Join, PushRequest, Stop, Wake
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.server import Server


class Pairs(Gate):
    """Two pushes make a version."""

    collects = True
    holding: bool = True
    keeps = 2

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        return HOLD if self.holding else KEEP

    def complete(self, server: View) -> bool:
        return len(server.kept) == 2


def leased(gate: Gate, budget: Budget | None = None, workers: int = 2, **keys: Any) -> Server:
    server = Server(gate, 4, budget or Budget(), **keys)
    for worker in range(workers):
        server.hear(Join(worker))
        server.hear(FetchRequest(worker, 1, 1, part=0 if keys.get("parts") else -1))
    return server


def push(worker: int, part: int, number: int = 1, base: int = 0) -> PushRequest:
    return PushRequest(worker, 1, number, base, 4, 0.0, 0.0, part=part)


def test_a_held_part_of_a_push_is_not_merged_before_the_other_parts_have_come() -> None:
    """Workers begin with different parts, as the client makes them."""
    server = leased(Pairs(), parts=2, apart=True)
    assert server.hear(push(0, 1)) == []
    assert server.hear(push(1, 0)) == [], "both wait for nothing yet: their other parts are on the way"
    ends = server.hear(push(0, 0))
    assert [(end.worker, end.part, end.version) for end in acks(ends)] == [(0, 0, 1), (1, 0, 1)]
    assert [(end.worker, end.part, end.steps) for end in acks(server.hear(push(1, 1)))] == [(0, 1, 0), (1, 1, 4)]
    assert ([at.version for at in server.parts], server.minibatches) == ([1, 1], 8)


def test_held_parts_are_merged_when_nothing_else_can_come() -> None:
    server = leased(Pairs(), parts=2, apart=True, workers=1)
    assert server.hear(push(0, 0)) == []
    ends = acks(server.hear(push(0, 1)))
    assert sorted((end.part, end.version) for end in ends) == [(0, 1), (1, 1)]


@pytest.mark.parametrize("order", [[(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 0), (0, 1), (1, 1), (1, 0)]])
def test_at_the_end_all_parts_have_the_same_pushes(order: Sequence[tuple[int, int]]) -> None:
    """The second push of part 0 makes the last version; what is kept of other parts belongs to it too."""
    server = leased(Pairs(holding=False), Budget(updates=1), parts=2, apart=True)
    ended = [end for each in order for end in acks(server.hear(push(*each)))]
    assert sorted((end.worker, end.part) for end in ended if end.version > 0) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert server.minibatches == 8


def test_a_push_whose_first_part_was_only_held_at_the_end_is_dropped_whole() -> None:
    server = leased(Pairs(), parts=2, apart=True)
    server.hear(push(0, 0))
    closed = acks(server.close())
    late = acks(server.hear(push(0, 1)))
    assert [(end.part, end.version) for end in closed + late] == [(0, -1), (1, -1)]
    assert (server.minibatches, [at.version for at in server.parts]) == (0, [0, 0])


def test_a_program_cannot_name_one_of_several_independent_servers() -> None:
    replica = Replica(0, parts=2)
    with pytest.raises(ProtocolError, match="names part 1 of independent servers"):
        list(programs.in_parts(iter([Fetch(replica, 1)]), 0, 2, True))  # type: ignore[arg-type]
    alone = Fetch(replica, NO_PART)
    assert list(programs.in_parts(iter([alone]), 0, 2, True)) == [alone]  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [0, 2])
def test_parameters_that_a_gate_held_back_come_with_the_next_message(parts: int) -> None:
    class Late(Gate):
        holds_back = True
        needs_clock = True

        def may_fetch(self, worker: int, server: View) -> bool:
            return server.now_ns >= 10

        def wake_ns(self, server: View) -> int | None:
            return 10

    server = Server(Late(), 4, Budget(), parts=parts)
    server.hear(Join(0), 0)
    assert server.hear(FetchRequest(0, 1, 1, part=1 if parts else -1, lease=False), 5) == []
    assert server.wake_ns == 10
    answers = server.hear(FetchRequest(0, 1, 2, part=NO_PART), 10)
    assert sorted(answer.number for answer in answers if isinstance(answer, Grant)) == [1, 2]


def test_parameters_that_wait_for_a_slower_worker_come_when_it_has_pushed() -> None:
    server = leased(gates.bounded_staleness(0))
    assert [type(each) for each in server.hear(push(0, -1))] == [Ack]
    assert server.hear(FetchRequest(0, 1, 2, lease=False)) == []
    assert [(type(each), each.worker) for each in server.hear(push(1, -1))] == [(Ack, 1), (Grant, 0)]


def test_a_stop_that_is_due_at_a_message_of_another_worker_is_not_lost() -> None:
    class Timed(Gate):
        needs_clock = True

        def on_push(self, push: PushRequest, server: View) -> Verdict:
            return APPLY

        def stops(self, server: View) -> Iterable[int]:
            return [each for each in server.owing if server.now_ns >= server.member(each).lease_ns + 10]

        def wake_ns(self, server: View) -> int | None:
            return min((server.member(each).lease_ns + 10 for each in server.owing), default=None)

    server = Server(Timed(), 4, Budget())
    for worker in range(2):
        server.hear(Join(worker), 0)
    server.hear(FetchRequest(0, 1, 1), 0)
    server.hear(FetchRequest(1, 1, 1), 12)
    assert server.wake_ns == 12, "the lease of worker 0 is over already: at once"
    [stop] = server.hear(Wake(), 12)
    assert isinstance(stop, Stop)
    assert stop.worker == 0
    assert server.wake_ns is None, "it has been asked for that time"


def acks(answers: Sequence[Any]) -> list[Ack]:
    return [each for each in answers if isinstance(each, Ack)]
