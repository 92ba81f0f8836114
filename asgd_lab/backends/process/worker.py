"""A worker process: drives its program, trains, and talks to the server; it writes its parameters and its mailbox only.

On the CPU a coupled replica trains right in its mailbox: measuring then turns the parameters into the update in place,
and the next fetch writes them anew. The center is the granted slot itself, mapped read-only. On a GPU the replica has
vectors of its own and the two are staged through the shared ones.

An emulated device computes the real mathematics and then waits out the stated time; likewise it waits out the stated
costs of client and link. A minibatch whose mathematics took longer than stated is an overrun, and is counted.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import torch
from torch import Tensor

from asgd_lab.backends.build import build_algorithm, build_task, build_worker
from asgd_lab.backends.process import channel
from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.channel import Answer, Ask, Request
from asgd_lab.backends.process.clock import now_ns, precise_timers, sleep_until
from asgd_lab.backends.process.plan import EFFECT_ROW, KIND, MINIBATCH_ROW, Plan, settle
from asgd_lab.backends.process.snapshots import of_replica
from asgd_lab.errors import ProtocolError
from asgd_lab.hardware.costs import Costs
from asgd_lab.hardware.steps import StepTimes
from asgd_lab.protocol.effects import Fetch, Push, Train
from asgd_lab.protocol.replica import Delta
from asgd_lab.record.rowfile import RowFile

STOP, STATE, STEPS, OVERRUNS = Board.STOP, Board.STATE, Board.STEPS, Board.OVERRUNS
FETCH, TRAIN, PUSH, ADOPT, MEASURE = (KIND[kind] for kind in ("fetch", "train", "push", "adopt", "measure"))


class Over(Exception):
    """The run ended while this worker was at work: what it has not pushed is not counted."""


def main(plan: Plan, number: int, end: socket.socket) -> None:
    """The process: build, warm up, say ready, and run the program to its end."""
    settle(plan, f"worker-{number}")
    WorkerProcess(plan, number, end).run()


class WorkerProcess:
    """One worker and its means."""

    def __init__(self, plan: Plan, number: int, end: socket.socket) -> None:
        self.plan, self.number, self.end = plan, number, end
        scenario = plan.scenario
        self.task = build_task(scenario, plan.data.tensors())
        self.algorithm = build_algorithm(scenario)
        device = _device(scenario.backend.device, number)
        self.staged = device.type != "cpu"
        initial = plan.slots.vector(0)
        mailbox = plan.mailboxes.vector(number, writable=True)
        own = torch.empty(plan.size, device=device) if self.staged else mailbox
        # A coupled delta's update may take the parameters' place; a sum of gradients or an anchored delta may not.
        in_place = not self.staged and self.algorithm.vectors is Delta
        self.worker = build_worker(
            self.task, self.algorithm, number, initial.to(device), [own], params=mailbox if in_place else None
        )
        self.replica = self.worker.replica
        self.mailbox = mailbox
        self.centers: dict[int, Tensor] = {}
        self.center = torch.empty_like(own) if self.staged else None
        self.emulated = scenario.backend.device == "emulated"
        if self.emulated:
            stated = getattr(scenario.task, "step_s", None)
            self.times = StepTimes.all(scenario.hardware, scenario.seed, scenario.workers, stated)[number]
            self.times.draw_ahead()
            self.costs = costs = Costs.of(scenario.hardware, plan.size_bytes)
            self.send_ns = costs.client_push_ns + costs.to_host_ns + costs.up_ns + costs.latency_ns
            self.receive_ns = costs.latency_ns + costs.down_ns + costs.to_device_ns + costs.client_fetch_ns
            precise_timers()
        keep = scenario.record != "summary"
        self.effects = RowFile(plan.parts / f"worker-{number}.effects", EFFECT_ROW)
        self.minibatches = RowFile(plan.parts / f"worker-{number}.minibatches", MINIBATCH_ROW) if keep else None
        self.snapshots = of_replica(plan, number)
        self.words = plan.board.words_of(number)
        self.loss = plan.board.loss[number]
        self.orders = plan.board.words_of_server()

    def run(self) -> None:
        """Until the program ends, or the run does."""
        self.worker.learner.warm_up()
        channel.ask(self.end, Request(Ask.READY, now_ns()))
        go = channel.await_answer(self.end)
        if go is None:
            return
        self.start_ns = go.steps
        try:
            self._drive()
        except Over:
            pass
        finally:
            self.effects.close()
            if self.minibatches is not None:
                self.minibatches.close()
            self.words[Board.STATE] = Board.STATES.index("left")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may have left first
            channel.ask(self.end, Request(Ask.LEAVE, now_ns()))

    def _drive(self) -> None:
        handlers: dict[type, Callable[[int], int]] = {Fetch: self._fetch, Train: self._train, Push: self._push}
        last, previous = now_ns(), None
        for effect in self.worker.program:
            handler = handlers.get(type(effect))
            if handler is None:
                raise ProtocolError(f"the process backend does not interpret {type(effect).__name__}")
            begun = now_ns()
            if previous is Fetch and type(effect) is Train:  # what the program computed between the two
                self._note(ADOPT, last, begun)
            elif type(effect) is Push:
                self._note(MEASURE, last, begun)
            previous = type(effect)
            last = handler(begun)

    def _fetch(self, begun: int) -> int:
        self.words[STATE] = 1
        if self.emulated:
            sleep_until(begun + self.costs.latency_ns)
        granted = self._call(Request(Ask.FETCH, now_ns()))
        replica = self.replica
        if granted.steps:
            center = self.centers.get(granted.detail)
            if center is None:
                center = self.centers[granted.detail] = self.plan.slots.vector(granted.detail)
            if replica.vectors is not None:
                replica.vectors.center = center if self.center is None else self.center.copy_(center)
        if self.emulated:
            sleep_until(now_ns() + self.receive_ns)
        ended = now_ns()
        size = self.plan.size_bytes if granted.steps else 0
        replica.grant(granted.version, granted.steps)
        self._note(FETCH, begun, ended, granted.waited_ns, granted.version, -1, granted.steps, size)
        return ended

    def _train(self, begun: int) -> int:
        self.words[STATE] = 2
        replica, minibatch, minibatches = self.replica, self.worker.learner.minibatch, self.minibatches
        first, steps = replica.minibatches, replica.steps
        ends = self.times.ends_ns(steps, begun - self.start_ns) if self.emulated else []
        words, orders, start_ns = self.words, self.orders, self.start_ns
        loss_sum = error_sum = 0.0
        ended, due, done = begun, begun, 0
        round = replica.sequence + 1
        for index in range(steps):
            started = now_ns() if self.emulated else ended
            loss, error = minibatch(first + index)
            ended = now_ns()
            if self.emulated:
                stated_ns = ends[index] - (ends[index - 1] if index else 0)
                overrun_ns = max(0, ended - started - stated_ns)
                words[OVERRUNS] += overrun_ns > 0
                due += stated_ns + overrun_ns
                sleep_until(due)
                ended = max(ended, now_ns())
            loss_sum += loss
            error_sum += error
            done += 1
            if minibatches is not None:
                minibatches.add(round, self.number, first + index, ended - start_ns, loss, error)
            words[STEPS] = first + done
            if orders[STOP]:
                break
        self._note(TRAIN, begun, ended, 0, replica.version, -1, done)
        if orders[STOP] and done < steps:
            raise Over
        replica.trained(loss_sum, error_sum)
        self.loss[0] = loss_sum / steps
        if self.snapshots is not None and replica.vectors is not None and self.snapshots.due(replica.minibatches):
            in_server = orders[Board.MINIBATCHES]
            self.snapshots.take(ended - start_ns, replica.version, in_server, replica.vectors.params)
            ended = now_ns()
        return ended

    def _push(self, begun: int) -> int:
        self.words[STATE] = 3
        arrived = self.replica.arriving()
        if self.staged:
            assert self.replica.vectors is not None
            self.mailbox.copy_(self.replica.vectors.update)
        if self.emulated:
            sleep_until(begun + self.send_ns)
        answer = self._call(
            Request(Ask.PUSH, now_ns(), arrived.sequence, arrived.base, arrived.steps, arrived.loss, arrived.error)
        )
        if self.emulated:
            sleep_until(now_ns() + self.costs.latency_ns)
        ended = now_ns()
        size = self.plan.size_bytes
        self._note(PUSH, begun, ended, answer.waited_ns, answer.version, answer.detail, answer.steps, size)
        return ended

    def _call(self, request: Request) -> Answer:
        try:
            channel.ask(self.end, request)
            answer = channel.await_answer(self.end)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise Over
        return answer

    def _note(
        self,
        kind: int,
        begun: int,
        ended: int,
        waited: int = 0,
        version: int = -1,
        staleness: int = -1,
        steps: int = 0,
        size: int = 0,
    ) -> None:
        start = self.start_ns
        # A fetch opens the round that the next push closes; measuring has closed it already.
        round = self.replica.sequence + (kind != PUSH and kind != MEASURE)
        self.effects.add(
            self.number, round, kind, begun - start, ended - start, waited, version, staleness, steps, size, -1
        )


def _device(kind: str, worker: int) -> torch.device:
    """`cuda` spreads the workers over the GPUs there are; the other two compute on the CPU."""
    if kind != "cuda":
        return torch.device("cpu")
    return torch.device("cuda", worker % torch.cuda.device_count())
