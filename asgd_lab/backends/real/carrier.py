"""The carrier of a worker's client: sends its requests, trains, and hands over the messages that arrive.

It neither numbers nor matches messages, and knows no algorithm. It records times: a row per effect, as the program sees
it, and the time of sending in each message. An emulated device waits for the stated costs of client and link.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns as now_ns
from typing import Any

from asgd_lab.backends.build import Worker
from asgd_lab.backends.real.emulation import wait_out
from asgd_lab.backends.real.plan import EFFECT_ROW, KIND, MINIBATCH_ROW, Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.snapshots import OfWorker
from asgd_lab.backends.real.train import Trainer
from asgd_lab.backends.real.transport import (
    Closed,
    Failed,
    FromWorker,
    NewServer,
    Resending,
    Save,
    Saved,
    Welcome,
    WorkerEnd,
)
from asgd_lab.hardware.costs import Costs
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.effects import FETCH, Train
from asgd_lab.protocol.messages import ALL, Ack, FetchRequest, Grant, Leave, PushRequest, Stop
from asgd_lab.record.rowfile import RowFile

STOP, STATE, SHOWN = Words.STOP, Words.STATE, Words.SHOWN
FETCHING, TRAINING, PUSHING, LEFT = (Words.STATES.index(name) for name in ("fetching", "training", "pushing", "left"))
FETCH_ROW, TRAIN_ROW, PUSH_ROW, ADOPT_ROW, MEASURE_ROW = (
    KIND[kind] for kind in ("fetch", "train", "push", "adopt", "measure")
)


class LifeOver(Exception):
    """The server has failed this life of the worker, which may begin another."""


class Carrier:
    """The carrier of one worker over all its lives; `save` writes its part of a checkpoint, unless it was abandoned."""

    def __init__(
        self, plan: Plan, number: int, process: int, end: WorkerEnd, algorithm: Algorithm,
        save: Callable[[int], bool],
    ) -> None:  # fmt: skip
        self.number, self.end, self._algorithm, self._save = number, end, algorithm, save
        scenario = plan.scenario
        self.words, self.orders = plan.transport.words.of(number), plan.transport.words.of_server()
        self.start_ns = 0  # of the run's clock
        self._size = plan.size_bytes
        self._emulated = scenario.backend.device == "emulated"
        # A fetch that is known to follow a push is sent with it: the server serves the two one after the other.
        self._eager = not self._emulated and not algorithm.gate.collects
        costs = Costs.of(scenario.hardware, plan.size_bytes)
        self._latency_ns = costs.latency_ns
        self._send_ns = costs.client_push_ns + costs.to_host_ns + costs.latency_ns
        self._up_ns = costs.up_ns  # of an update as it is
        self._receive_ns = costs.latency_ns + costs.down_ns + costs.to_device_ns + costs.client_fetch_ns
        name = f"worker-{number}-{process}"
        self.effects = RowFile(plan.parts / f"{name}.effects", EFFECT_ROW, existing=True)
        keep = scenario.record != "summary"
        self.minibatches = RowFile(plan.parts / f"{name}.minibatches", MINIBATCH_ROW, existing=True) if keep else None
        staged = scenario.backend.device == "cuda"
        self.trainer = Trainer(plan, number, self.minibatches, end if staged and algorithm.overlaps else None)
        self.snapshots = OfWorker(plan, number)
        self._begin()

    def close(self) -> None:
        """Close the files of rows, and show that the worker has left."""
        self.effects.close()
        if self.minibatches is not None:
            self.minibatches.close()
        self.words[STATE] = LEFT

    def join(self, worker: Worker, message: FromWorker, life: int) -> Welcome:
        """Join, and wait until the run's clock has started."""
        self.end.begin()
        self._begin()
        self._worker, self._client, self._replica = worker, worker.client, worker.replica
        self.end.send(message)
        while True:
            answer = self.end.hear()[0]
            if isinstance(answer, NewServer):
                self.end.send(Resending(self.number))
                self.end.send(message)
            elif isinstance(answer, Welcome) and answer.life == life:
                self.start_ns = answer.start_ns
                self.words[Words.LIVES] = answer.incarnation
                return answer

    def carry(self) -> None:
        """Carry the program to its end; LifeOver or Closed may end it earlier."""
        client, replica, words = self._client, self._replica, self.words
        advance, note, start = client.advance, self.effects.add, self.start_ns
        rest = (0, -1, -1, 0, 0, -1, self.number, replica.incarnation)  # for rows with times alone
        previous: type | None = None
        number = self.number
        last = now_ns()
        while True:
            step: Any = advance()
            begun = now_ns()
            words[SHOWN] = begun
            kind: type = type(step)
            if kind is Train:
                if previous is Grant:  # the program's computation between the two
                    note(number, replica.sequence + 1, ADOPT_ROW, last - start, begun - start, *rest)
                last = self._train(begun)
            elif kind is PushRequest:
                if previous is Train:
                    note(number, step.number, MEASURE_ROW, last - start, begun - start, *rest)
                self._push(step, begun)
                if client.awaits is not None:
                    last, kind = self._await(begun), Ack
            elif kind is FetchRequest:
                self._fetch(step, begun)
                if client.awaits is not None:
                    last, kind = self._await(begun), Grant
            elif step is None:
                kind = Grant if client.awaits < 0 else Ack  # type: ignore[operator]
                last = self._await(begun)
            elif kind is Grant or kind is Ack:  # it had come before
                waited_ns, released_ns = self._kept.pop((kind, step.number, step.part))
                last = self._taken(client.taken, step, begun, waited_ns, released_ns)
            elif kind is Leave:
                self.end.send(step)
                self.end.flush()
                return
            previous = kind

    def leave(self, why: int) -> None:
        """End this life before its program ends."""
        self.end.send(Leave(self.number, self._replica.incarnation, why))
        self.end.flush()

    # ------------------------------------------------------------------ inside

    def _begin(self) -> None:
        self._received_ns = 0
        # By exchange: when the program came to the one that is under way (0: not yet), its round and bytes, and the
        # times of its request.
        self._asked: dict[int, tuple[int, int, int, int, int]] = {}
        self._to_save: Save | None = None
        # Of answers that are not waited for yet, by type, number and part: their times.
        self._kept: dict[tuple[type, int, int], tuple[int, int]] = {}

    def _train(self, begun: int) -> int:
        self.words[STATE] = TRAINING
        replica, trainer, client = self._replica, self.trainer, self._client
        steps, start, number = replica.steps, self.start_ns, self.number
        ended, done = trainer.train(self._worker, begun, start)
        self.effects.add(
            number, replica.sequence + 1, TRAIN_ROW, begun - start, ended - start, 0, replica.version, -1, done, 0, -1,
            number, replica.incarnation,
        )  # fmt: skip
        if done < steps:
            if self.orders[STOP]:
                raise Closed
            while not client.stopping:  # it was sent before the word was written
                self._listen()
        client.trained(trainer.loss_sum, trainer.error_sum, done)
        if self.snapshots.look(self._worker, ended - start, self.orders[Words.MINIBATCHES]):
            ended = now_ns()
        return ended

    def _fetch(self, request: FetchRequest, begun: int) -> None:
        ahead = request.ahead
        self.words[STATE] = TRAINING if ahead else FETCHING
        sent = self._arrival(begun, self._latency_ns, ahead) if self._emulated else now_ns()
        received, which = self._received_ns, FETCH if request.part == ALL else self._client.key(request)
        self._asked[which] = begun, self._replica.sequence + 1, 0, sent, received
        self.end.send(request, sent, received)

    def _push(self, request: PushRequest, begun: int) -> None:
        self.words[STATE] = PUSHING
        client = self._client
        which = request.buffer if request.part == ALL else client.key(request)
        if self._emulated:
            overlaps = self._algorithm.depth > 1 or client.is_under_way(FETCH)
            share = request.size_bytes / self._size if self._size else 1.0
            sent = self._arrival(begun, self._send_ns + round(self._up_ns * share), overlaps)
        else:
            sent = now_ns()
        received = self._received_ns
        self._asked[which] = begun, request.number, request.size_bytes, sent, received
        early = client.early_fetch() if self._eager else None
        if early is not None:
            self._asked[FETCH] = 0, 0, 0, sent, received
        self.end.send(request, sent, received, early)

    def _await(self, begun: int) -> int:
        """Wait for the program's answer; return the time at which the program took it."""
        client, hear, which = self._client, self.end.hear, self._client.awaits
        assert which is not None
        self.words[STATE] = FETCHING if which < 0 else PUSHING
        while True:
            if which == FETCH and self._to_save is not None and len(client.unanswered()) == 1:
                told, self._to_save = self._to_save, None
                if self._save(told.checkpoint):
                    self.end.send(Saved(self.number, told.incarnation, told.checkpoint, told.told))
            message, waited_ns, released_ns = hear()
            if type(message) is Grant or type(message) is Ack:
                if client.hear(message):
                    return self._taken(which, message, begun, waited_ns, released_ns)
                self._keep(message, waited_ns, released_ns)
            else:
                self._obey(message)

    def _listen(self) -> None:
        """Hear one message of any kind."""
        message, waited_ns, released_ns = self.end.hear()
        if isinstance(message, Grant | Ack):
            self._client.hear(message)
            self._keep(message, waited_ns, released_ns)
        else:
            self._obey(message)

    def _keep(self, message: Grant | Ack, waited_ns: int, released_ns: int) -> None:
        if message.incarnation == self._replica.incarnation:
            self._kept[type(message), message.number, message.part] = waited_ns, released_ns

    def _obey(self, message: Any) -> None:
        """Handle a message that answers no request."""
        client = self._client
        if isinstance(message, Stop):
            client.hear(message)
        elif isinstance(message, Save):
            if message.incarnation == self._replica.incarnation:
                self._to_save = message
        elif isinstance(message, Failed):
            if message.incarnation == self._replica.incarnation:
                raise LifeOver
        elif isinstance(message, NewServer):
            self.end.send(Resending(self.number))
            for request in client.unanswered():
                self.end.send(request, *self._asked[client.key(request)][3:])

    def _taken(self, which: int, answer: Grant | Ack, begun: int, waited_ns: int, released_ns: int) -> int:
        """Write the row of an answer that the program has taken; return its time."""
        replica, start = self._replica, self.start_ns
        began, round, size, _, _ = self._asked[which]
        if type(answer) is Grant:
            _, _, _, version, steps, slot, part = answer
            if slot >= 0 and part == ALL:
                size = self._size
                if replica.vectors is not None:
                    replica.vectors.center = self.end.center(answer)
            elif slot >= 0:
                size = self._received_part(answer)
            ended = self._received(released_ns, self._receive_ns) if self._emulated else now_ns()
            kind, staleness = FETCH_ROW, -1
        else:
            _, _, _, version, staleness, steps, _, part = answer  # type: ignore[misc]
            ended = self._received(released_ns, self._latency_ns) if self._emulated else now_ns()
            kind = PUSH_ROW
        self._received_ns = ended
        if not began:  # its request was sent before the program came to it
            began, round = begun, replica.sequence + 1
        number = self.number
        self.effects.add(
            number, round, kind, began - start, ended - start, waited_ns, version, staleness, steps, size,
            part if part >= 0 else -1, number, replica.incarnation,
        )  # fmt: skip
        return ended

    def _received_part(self, grant: Grant) -> int:
        """Copy a granted version of one part to the replica's center; return the bytes."""
        replica, place = self._replica, self._replica.parts[grant.part]
        if replica.vectors is not None:
            replica.receive(grant.part, self.end.center(grant)[place.span])
        return place.size_bytes

    def _arrival(self, begun: int, way_ns: int, overlaps: bool) -> int:
        """The arrival time of an emulated request: an idle worker sends it then, else the server delays it."""
        if overlaps:
            return begun + way_ns
        return wait_out(self.words, Words.WAYS_NS, begun, begun + way_ns, way_ns)

    def _received(self, released_ns: int, way_ns: int) -> int:
        """Wait until an emulated answer has arrived; return its time."""
        due = released_ns if self._algorithm.depth > 1 else now_ns()
        sent = due if self._algorithm.overlaps else released_ns
        return wait_out(self.words, Words.WAYS_NS, sent, due + way_ns, way_ns)
