"""One life of a worker, executed again as late as its recorded pushes allow: when one arrives, its work is done.

So all that a later fetch could have brought is known by then. The client's bookkeeping is that of the record, apart
from the versions that its fetches bring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from asgd_lab.backends.build import Worker
from asgd_lab.backends.failing import minibatch_failed
from asgd_lab.backends.replayed_worker import Differs, StoppedLease, name
from asgd_lab.protocol.effects import FETCH, Train
from asgd_lab.protocol.messages import NOWHERE, Ack, Answer, FetchRequest, Grant, Leave, PushRequest, Request, Stop
from asgd_lab.protocol.replica import Replica

Exchange = tuple[bool, int, int]
"""An exchange of a life: whether it is a fetch, its number and its part."""


class Drifting:
    """The local steps of a round as they are: each begins where the last one ended."""

    def arrived(self) -> None:
        """A fetch has brought parameters."""

    def begin(self) -> None:
        """A minibatch begins."""

    def end(self) -> None:
        """It has ended."""

    def rest(self) -> None:
        """All minibatches of a Train have ended."""


class AtFetchedPoint(Drifting):
    """Every gradient of a round is that at the fetched point; the steps add up."""

    def __init__(self, params: Tensor) -> None:
        self._params = params  # (P,) the replica's
        self._point = params.clone()
        self._walked = params.clone().zero_()
        self._has_moved = True  # is the point that of an earlier fetch?

    def arrived(self) -> None:
        self._has_moved = True

    def begin(self) -> None:
        if self._has_moved:
            self._point.copy_(self._params)
            self._walked.zero_()
            self._has_moved = False
        self._params.copy_(self._point)

    def end(self) -> None:
        self._walked.add_(self._params).sub_(self._point)

    def rest(self) -> None:
        if not self._has_moved:
            self._params.copy_(self._point).add_(self._walked)


class Life:
    """A life with its `stopped` leases by number. `bring` gives the replica a granted version, and returns it."""

    def __init__(
        self, worker: Worker, stopped: Mapping[int, StoppedLease], bring: Callable[[Replica, Grant], int],
        steps: Drifting | None = None,
    ) -> None:  # fmt: skip
        self.learner, self.replica, self.client = worker.learner, worker.replica, worker.client
        self._stopped, self._bring = stopped, bring
        self._steps = steps or Drifting()
        self._recorded = 0  # the version of the last fetch in the record
        self._after_adopt = self.replica.after_adopt
        self.replica.after_adopt = self._adopted
        self._answers: dict[Exchange, Grant | Ack] = {}  # of the server, until the program waits for them
        self._sent: dict[tuple[int, int], PushRequest] = {}  # pushes by number and part, until the record has them
        self._under_way: dict[int, Request] = {}

    def hear(self, answer: Answer) -> None:
        """Keep an answer until the program waits for it; only the first one to a push is waited for."""
        if not isinstance(answer, Stop):
            self._answers.setdefault((isinstance(answer, Grant), answer.number, answer.part), answer)

    def pull(self, recorded: PushRequest) -> PushRequest:
        """Advance until this push is sent, and return it as it is here."""
        key = recorded.number, recorded.part
        while key not in self._sent:
            self._advance(f"the record has {name(recorded)}")
        return self._sent.pop(key)

    def rest(self) -> None:
        """Advance to the fetch without an answer that a checkpoint was taken at."""
        while not (self.client.awaits == FETCH and self._exchange(FETCH) not in self._answers):
            self._advance("the record goes on with it after a checkpoint")

    def answered_by(self, other: Life) -> None:
        """Take over the answers that another process of the same life has not used."""
        self._answers |= other._answers

    def _adopted(self) -> None:
        """The program has adopted a center: a schedule that follows versions follows the recorded ones."""
        if self._after_adopt is not None:
            self._after_adopt()
            self.learner.version = self._recorded

    def _exchange(self, which: int) -> Exchange:
        request = self._under_way[which]
        return isinstance(request, FetchRequest), request.number, request.part

    def _advance(self, expected: str) -> None:
        step = self.client.advance()
        if step is None:
            assert self.client.awaits is not None
            self._take(self.client.awaits, expected)
        elif type(step) is Leave:
            raise Differs(f"its program ends, and {expected}")
        elif type(step) is Train:
            self._train()
        elif type(step) is FetchRequest or type(step) is PushRequest:
            self._under_way[self.client.key(step)] = step
            if type(step) is PushRequest:
                self._sent[step.number, step.part] = step

    def _take(self, which: int, expected: str) -> None:
        exchange = self._exchange(which)
        if exchange not in self._answers:
            raise Differs(f"it waits for {'fetch' if exchange[0] else 'push'} {exchange[1]}, and {expected}")
        answer = self._answers.pop(exchange)
        if isinstance(answer, Grant) and answer.slot != NOWHERE:
            self._recorded = answer.version if answer.part <= 0 else self._recorded
            version = self._bring(self.replica, answer)
            self._steps.arrived()
            answer = answer._replace(version=version)
        self.client.take(which, answer)

    def _train(self) -> None:
        """Take the minibatches of a Train; if its lease was stopped, the recorded number of them."""
        replica, client, steps = self.replica, self.client, self._steps
        taken = replica.steps
        wasted, pushes = self._stopped.get(client.lease, (0, -1))
        if pushes == replica.sequence and replica.unpushed <= wasted <= replica.unpushed + taken:
            taken = wasted - replica.unpushed
            client.hear(Stop(replica.worker, replica.incarnation, client.lease))
        loss_sum = error_sum = 0.0
        for step in range(replica.minibatches, replica.minibatches + taken):
            steps.begin()
            try:
                loss, error = self.learner.minibatch(step)
            except Exception as raised:
                raise minibatch_failed(replica.worker, step, raised) from raised
            steps.end()
            loss_sum += loss
            error_sum += error
        steps.rest()
        client.trained(loss_sum, error_sum, taken)
