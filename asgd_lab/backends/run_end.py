"""The end of a real or an inline run's clock, from the messages that its server heard, and the same of its replay."""

from __future__ import annotations

from collections.abc import Sequence

from asgd_lab.backends.event_log import Logged
from asgd_lab.protocol.messages import Ack, Answer, Close, PushRequest


class RunEnd:
    """The end of the last message that was not in vain: of a Close, or of a push that came in time or made a version.

    Where the budget of updates is used up by the first part of a push, its other parts follow, and belong to the run. A
    leave may make the last version too.
    """

    __slots__ = ("_is_closed", "before_ns", "ns")

    def __init__(self) -> None:
        self.ns = 0
        self.before_ns = 0  # as in records of earlier versions: no push after the last version of the first part
        self._is_closed = False

    def note(self, message: Logged, in_time: bool, ended_ns: int, answers: Sequence[Answer]) -> None:
        """The server has heard a message, `in_time` if it was not closed before."""
        if (type(message) is PushRequest and in_time) or type(message) is Close:
            self.ns = self.before_ns = ended_ns
            self._is_closed = self._is_closed or type(message) is Close
        elif not self._is_closed and any(type(answer) is Ack and answer.version > 0 for answer in answers):
            self.ns = ended_ns
