"""Messages survive their way over a socket, alone and sent together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.backends.real.transport import Save
from asgd_lab.backends.real.wire import SIZE, pack, unpack_all
from asgd_lab.protocol.messages import Ack, FetchRequest, Grant, Join, PushRequest, Stop

KINDS = [Join, FetchRequest, PushRequest, Grant, Ack, Stop, Save]
MESSAGES = st.sampled_from(KINDS).flatmap(st.from_type)
NUMBERS = st.integers(-(2**63), 2**63 - 1)


def fits(message: object) -> bool:
    """Whether every number has a place in 64 bits, and equals itself, as NaN does not."""
    return all(each == each and (isinstance(each, float) or abs(each) < 2**63) for each in message)  # type: ignore[attr-defined]


@given(st.lists(st.tuples(MESSAGES.filter(fits), NUMBERS, NUMBERS), min_size=1, max_size=3))
def test_messages_that_are_sent_together_arrive_together_and_in_order(sent: list[tuple[object, int, int]]) -> None:
    data = b"".join(pack(*each) for each in sent)
    assert len(data) <= len(sent) * SIZE
    came = unpack_all(data)
    assert came == sent
    assert [type(each) for each, _, _ in came] == [type(each) for each, _, _ in sent]
