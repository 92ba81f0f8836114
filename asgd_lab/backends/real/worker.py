"""A worker process: drives its program, trains, and talks to the server; it writes its parameters and its mailbox only.

On the CPU a coupled replica trains right in its mailbox: measuring then turns the parameters into the update in place,
and the next fetch writes them anew. The center is the granted slot itself, mapped read-only. On a GPU the replica has
vectors of its own, which are staged through the shared ones: beside the computation where the algorithm overlaps.

An emulated device computes the real mathematics and then waits out the stated time; likewise it waits out the stated
costs of client and link. A minibatch whose mathematics took longer than stated is an overrun, and is counted.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import traceback
from time import monotonic_ns as now_ns
from typing import NamedTuple

import torch
from torch import Tensor

from asgd_lab.backends import devices
from asgd_lab.backends.build import build_algorithm, build_task, build_worker
from asgd_lab.backends.real.channel import Answer, Ask, Request
from asgd_lab.backends.real.checkpoints import restore_worker, save_worker
from asgd_lab.backends.real.emulation import precise_timers, wait_out
from asgd_lab.backends.real.link import Link, Out, Over
from asgd_lab.backends.real.plan import EFFECT_ROW, FATAL, KIND, MINIBATCH_ROW, Plan, settle
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.snapshots import OfWorker
from asgd_lab.backends.real.staged import Staged
from asgd_lab.backends.real.train import NotFinite, Trainer
from asgd_lab.errors import ProtocolError
from asgd_lab.hardware.costs import Costs
from asgd_lab.protocol import programs
from asgd_lab.protocol.effects import Effect, Fetch, Push, Start, Train, Wait
from asgd_lab.protocol.messages import Why
from asgd_lab.protocol.replica import Delta
from asgd_lab.record.rowfile import RowFile
from asgd_lab.tasks.base import one_line

STOP, STATE, SHOWN = Words.STOP, Words.STATE, Words.SHOWN
FETCHING, TRAINING, PUSHING, LEFT = (Words.STATES.index(name) for name in ("fetching", "training", "pushing", "left"))
ASKED = -1  # among buffers
FUTILE = 5
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FETCH, TRAIN, PUSH, ADOPT, MEASURE = (KIND[kind] for kind in ("fetch", "train", "push", "adopt", "measure"))


def main(plan: Plan, number: int, process: int, end: socket.socket) -> None:
    """The process, the worker's `process`-th: build, warm up, say ready, and run the program to its end."""
    settle(plan, f"worker-{number}")
    try:
        WorkerProcess(plan, number, process, end).run()
    except Exception as error:
        # A loss that the scenario does not stand, or no disk any more, which end every try.
        # Nor is there more memory on a GPU the next time.
        is_fatal = isinstance(error, NotFinite | torch.OutOfMemoryError) or (
            isinstance(error, OSError) and error.errno in NO_ROOM
        )
        traceback.print_exc()
        print(one_line(error), file=sys.stderr, flush=True)  # the last line, which the parent shows
        sys.exit(FATAL if is_fatal else 1)


class UnderWay(NamedTuple):
    """An exchange that was begun: when, how the link knows it, and of which round it is."""

    begun: int
    key: tuple[int, int]
    round: int


class WorkerProcess:
    """One worker and its means."""

    def __init__(self, plan: Plan, number: int, process: int, end: socket.socket) -> None:
        self.plan, self.number, self.link = plan, number, Link(end, self._save)
        scenario = plan.scenario
        self.device = devices.of(scenario, number)
        self.task = build_task(scenario, plan.data.tensors(), checked=True, device=self.device)
        self.algorithm = build_algorithm(scenario)
        # Whose answers may lie there before they are waited for.
        self.overlapped = self.algorithm.overlaps
        self.staged = (
            Staged(self.link, self.device, plan.slots, self.overlapped) if scenario.backend.device == "cuda" else None
        )
        self.line: Link | Staged = self.link if self.staged is None else self.staged
        depth = self.algorithm.depth
        self.mailboxes = [plan.mailboxes.vector(number * depth + buffer, writable=True) for buffer in range(depth)]
        # A coupled delta's update may take the parameters' place; a sum of gradients or an anchored delta may not.
        self.params: Tensor | None = None  # where they are not the replica's own
        if self.algorithm.shared:
            self.params = plan.slots.vector(0, writable=True)
        elif self.staged is None and self.algorithm.vectors is Delta:
            self.params = self.mailboxes[0]
            if process == 0:
                self.params.copy_(plan.slots.vector(0))
        self.centers: dict[int, Tensor] = {}
        self.emulated = scenario.backend.device == "emulated"
        if self.emulated:
            self.costs = costs = Costs.of(scenario.hardware, plan.size_bytes)
            self.send_ns = costs.client_push_ns + costs.to_host_ns + costs.up_ns + costs.latency_ns
            self.receive_ns = costs.latency_ns + costs.down_ns + costs.to_device_ns + costs.client_fetch_ns
            precise_timers()
        keep = scenario.record != "summary"
        name = f"worker-{number}-{process}"
        self.effects = RowFile(plan.parts / f"{name}.effects", EFFECT_ROW, existing=True)
        self.minibatches = RowFile(plan.parts / f"{name}.minibatches", MINIBATCH_ROW, existing=True) if keep else None
        self.trainer = Trainer(plan, number, self.minibatches)
        self.snapshots = OfWorker(plan, number)
        self.words = plan.progress.words_of(number)
        self.orders = plan.progress.words_of_server()
        is_coupled = self.algorithm.program is programs.coupled and not self.algorithm.gate.collects
        self.eager = is_coupled and not self.emulated
        self.start_ns = 0  # of the run's clock
        self.in_vain = 0  # lives in a row that ended before their first push because of a loss
        self._build()
        self.restored = restore_worker(plan, self.worker) if process == 0 else None  # its last fetch

    def _build(self) -> None:
        """A life's own: the replica, the local optimizer, and the program."""
        updates = self.mailboxes
        if self.staged is not None:
            self.staged.begin()
            updates = [torch.empty_like(each, device=self.device) for each in self.mailboxes]
        initial = self.plan.slots.vector(0).to(self.device)
        self.worker = build_worker(self.task, self.algorithm, self.number, initial, updates, self.params)
        self.replica = self.worker.replica
        self.fetches = 0
        self.early: tuple[int, int] | None = None  # a fetch that was asked before the program came to it
        self.going: dict[int, UnderWay] = {}  # by buffer the pushes, and the fetch at ASKED

    def run(self) -> None:
        """Until the program ends, or the run does; a life that was given up is followed by another."""
        self.worker.learner.warm_up()
        try:
            with contextlib.suppress(Over):
                while not self._live():
                    self._build()
            self.snapshots.end(self.worker, now_ns() - self.start_ns)
        finally:
            if self.staged is not None:
                self.words[Words.REGISTERED], self.words[Words.BUFFERED] = self.staged.staging.counts()
                print(self.staged.staging.refused, end="", flush=True)
                self.staged.staging.close()
            self.effects.close()
            if self.minibatches is not None:
                self.minibatches.close()
            self.words[STATE] = LEFT

    def _live(self) -> bool:
        """One life; False if it was given up meanwhile."""
        self.link.begin()
        life = now_ns() << 8 | self.number
        go = self.link.call(Request(Ask.READY, 0, life & (1 << 62) - 1, now_ns(), detail=self.restored is not None))
        replica = self.replica
        self.link.incarnation = self.words[Words.LIVES] = go.incarnation
        self.start_ns, self.fetches = go.steps, go.waited_ns
        if self.restored is None:
            replica.incarnation, replica.sequence, replica.minibatches = go.incarnation, go.version, go.detail
        else:
            self.fetches, self.restored = self.restored, None
        try:
            self._drive()
        except Out:
            return False
        except NotFinite:
            if self.staged is not None:  # what was pushed before this round counts
                self.staged.flush()
            faults = self.plan.scenario.faults
            self.in_vain = self.in_vain + 1 if replica.sequence == go.version else 1
            if faults is None or faults.on_not_finite == "stop" or self.in_vain == FUTILE:
                raise
            self.link.say(Request(Ask.LEAVE, replica.incarnation, 0, now_ns(), detail=Why.NOT_FINITE))
            return False
        self.link.say(Request(Ask.LEAVE, replica.incarnation, 0, now_ns()))
        return True

    def _drive(self) -> None:
        last, previous = now_ns(), None
        for effect in self.worker.client.program:
            begun = now_ns()
            self.words[SHOWN] = begun
            if previous is Fetch and type(effect) is Train:  # what the program computed between the two
                self._note(ADOPT, last, begun)
            elif previous is Train and type(effect) is Push:
                self._note(MEASURE, last, begun)
            previous = type(effect)
            last = self._interpret(effect, begun)

    def _interpret(self, effect: Effect, begun: int) -> int:
        """Do it; when it ended."""
        if type(effect) is Train:
            return self._train(begun)
        if type(effect) is Fetch:
            self._ask(begun, ahead=False)
            return self._receive()
        if type(effect) is Push:
            self._send(effect.buffer, begun)
            return self._sent(effect.buffer)
        assert isinstance(effect, Start | Wait)
        exchange, starts = effect.effect, type(effect) is Start
        if isinstance(exchange, Fetch):
            if starts:
                self._ask(begun, ahead=True)
            elif ASKED in self.going:
                return self._receive()
        elif starts:
            self._send(exchange.buffer, begun)
        elif exchange.buffer in self.going:
            return self._sent(exchange.buffer)
        return now_ns()

    def _train(self, begun: int) -> int:
        self.words[STATE] = TRAINING
        replica = self.replica
        between = self.staged.look if self.staged is not None and self.overlapped else None
        ended, done = self.trainer.train(self.worker, begun, self.start_ns, between)
        self._note(TRAIN, begun, ended, 0, replica.version, -1, done)
        if self.orders[STOP] and done < replica.steps:
            raise Over
        replica.trained(self.trainer.loss_sum, self.trainer.error_sum)
        if self.snapshots.look(self.worker, ended - self.start_ns, self.orders[Words.MINIBATCHES]):
            ended = now_ns()
        return ended

    def _ask(self, begun: int, ahead: bool) -> None:
        self.words[STATE] = TRAINING if ahead else FETCHING
        key, self.early = self.early, None
        if key is None:
            self.fetches += 1
            sent = self._arrival(begun, self.costs.latency_ns, ahead) if self.emulated else now_ns()
            key = self.line.ask(Request(Ask.FETCH, self.replica.incarnation, self.fetches, sent, detail=ahead))
        self._begin(ASKED, UnderWay(begun, key, self.replica.sequence + 1))

    def _receive(self) -> int:
        self.words[STATE] = FETCHING
        going = self.going[ASKED]
        granted = self.line.wait(going.key)
        replica = self.replica
        if granted.steps and replica.vectors is not None:
            replica.vectors.center = self._center(granted.detail)
        ended = self._received(granted, self.receive_ns) if self.emulated else now_ns()
        del self.going[ASKED]
        size = self.plan.size_bytes if granted.steps else 0
        replica.grant(granted.version, granted.steps)
        self._note(FETCH, going.begun, ended, granted.waited_ns, granted.version, -1, granted.steps, size, going.round)
        return ended

    def _center(self, slot: int) -> Tensor:
        if self.staged is not None:
            return self.staged.center(slot)
        if slot not in self.centers:
            self.centers[slot] = self.plan.slots.vector(slot)
        return self.centers[slot]

    def _send(self, buffer: int, begun: int) -> None:
        self.words[STATE] = PUSHING
        arrived = self.replica.arriving()
        overlaps = self.algorithm.depth > 1 or ASKED in self.going
        sent = self._arrival(begun, self.send_ns, overlaps) if self.emulated else now_ns()
        request = Request(
            Ask.PUSH, arrived.incarnation, arrived.number, sent, arrived.base, arrived.steps, buffer,
            arrived.loss, arrived.error,
        )  # fmt: skip
        if self.staged is None:
            key = self.line.ask(request)
        else:
            key = self.staged.push(request, self.replica.updates[buffer], self.mailboxes[buffer])
        self._begin(buffer, UnderWay(begun, key, arrived.number))
        if self.eager:  # the fetch that follows is asked with the push, which the server serves first
            self.fetches += 1
            self.early = self.line.ask(Request(Ask.FETCH, arrived.incarnation, self.fetches, now_ns()))

    def _sent(self, buffer: int) -> int:
        self.words[STATE] = PUSHING
        going = self.going[buffer]
        answer = self.line.wait(going.key)
        ended = self._received(answer, self.costs.latency_ns) if self.emulated else now_ns()
        del self.going[buffer]
        size, waited_ns = self.plan.size_bytes, answer.waited_ns
        self._note(PUSH, going.begun, ended, waited_ns, answer.version, answer.detail, answer.steps, size, going.round)
        return ended

    def _begin(self, which: int, going: UnderWay) -> None:
        if which in self.going:
            raise ProtocolError(f"worker {self.number} starts what it has started and not waited for")
        self.going[which] = going

    def _arrival(self, begun: int, way_ns: int, overlaps: bool) -> int:
        """When an emulated request arrives: who has nothing else to do sends it then, else the server keeps it."""
        if overlaps:
            return begun + way_ns
        return wait_out(self.words, Words.WAYS_NS, begun, begun + way_ns, way_ns)

    def _received(self, answer: Answer, way_ns: int) -> int:
        """An emulated answer is there no sooner than its way takes; when."""
        due = answer.released_ns if self.algorithm.depth > 1 else now_ns()
        sent = due if self.overlapped else answer.released_ns
        return wait_out(self.words, Words.WAYS_NS, sent, due + way_ns, way_ns)

    def _save(self, checkpoint: int) -> bool:
        """Write down what outlives a round; the fetch that is waited for is asked again by who goes on from it."""
        return save_worker(self.plan, self.worker, self.fetches - 1, checkpoint)

    def _note(
        self, kind: int, begun: int, ended: int, waited: int = 0, version: int = -1, staleness: int = -1,
        steps: int = 0, size: int = 0, round: int | None = None,
    ) -> None:  # fmt: skip
        start = self.start_ns
        if round is None:  # a fetch opens the round that the next push closes; measuring has closed it already
            round = self.replica.sequence + (kind != MEASURE)
        what = (waited, version, staleness, steps, size, -1, self.number, self.replica.incarnation)
        self.effects.add(self.number, round, kind, begun - start, ended - start, *what)
