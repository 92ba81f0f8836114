"""The minibatches of one Train: measured one by one, slowed by faults, or stretched to stated times."""

from __future__ import annotations

import math
from time import monotonic_ns as now_ns

from asgd_lab.backends.build import Worker
from asgd_lab.backends.real.emulation import sleep_until
from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.transport import WorkerEnd
from asgd_lab.hardware.step_times import StepTimes
from asgd_lab.record.rowfile import RowFile

STEPS, OVERRUNS, SHOWN, STOPPED = Words.STEPS, Words.OVERRUNS, Words.SHOWN, Words.STOPPED
LONGEST, TRAINED_NS = Words.LONGEST, Words.TRAINED_NS


class NotFinite(Exception):
    """The loss of a minibatch is not finite, and the scenario asks for a reaction."""


class Trainer:
    """Trains one worker, and shows its progress; between minibatches it calls `end.progress` if needed."""

    def __init__(self, plan: Plan, number: int, rows: RowFile | None, end: WorkerEnd | None) -> None:
        scenario = plan.scenario
        self.times: StepTimes | None = None
        if scenario.backend.device == "emulated":
            stated, slow = getattr(scenario.task, "step_s", None), scenario.faults
            self.times = StepTimes.all(scenario.hardware, scenario.seed, scenario.workers, stated, slow)[number]
            self.times.draw_ahead()
        self.number, self.rows = number, rows
        self.between = None if end is None else end.progress
        faults, words = scenario.faults, plan.transport.words
        self.minds = faults is not None and faults.on_not_finite != "ignore"
        self.words, self.orders = words.of(number), words.of_server()
        self.slower = memoryview(words.slower[number : number + 1].data)
        self.shown_loss = words.loss[number]
        self.loss_sum = self.error_sum = 0.0

    def train(self, worker: Worker, begun: int, start_ns: int) -> tuple[int, int]:
        """Take `replica.steps` minibatches, fewer if run or lease is stopped; return (end of the last, number)."""
        replica, minibatch, rows = worker.replica, worker.learner.minibatch, self.rows
        first, steps, lease, between = replica.minibatches, replica.steps, worker.client.lease, self.between
        times, words, orders, slower = self.times, self.words, self.orders, self.slower
        ends = times.ends_ns(steps, begun - start_ns) if times is not None else []
        loss_sum = error_sum = 0.0
        ended, due, done = begun, begun, 0
        round = replica.sequence + 1
        for index in range(steps):
            started = ended if times is None else now_ns()
            loss, error = minibatch(first + index)
            ended = now_ns()
            if times is not None:
                stated_ns = ends[index] - (ends[index - 1] if index else 0)
                overrun_ns = max(0, ended - started - stated_ns)
                words[OVERRUNS] += overrun_ns > 0
                due += stated_ns + overrun_ns
                sleep_until(due)
                ended = max(ended, now_ns())
            elif slower[0] > 1.0:
                sleep_until(started + int((ended - started) * slower[0]))
                ended = now_ns()
            loss_sum += loss
            error_sum += error
            done += 1
            if rows is not None:
                rows.add(round, self.number, first + index, ended - start_ns, loss, error)
            words[STEPS] = first + done
            words[SHOWN] = ended
            if ended - started > words[LONGEST]:
                words[LONGEST] = ended - started
            if self.minds and not math.isfinite(loss):
                raise NotFinite(f"the loss of minibatch {first + index} is {loss}")
            if orders[Words.STOP] or words[STOPPED] == lease:
                break
            if between is not None:
                between()
        words[TRAINED_NS] += ended - begun
        if done and times is not None:
            words[Words.STEPPED_NS] += ended - begun
            words[Words.STEPS_STATED_NS] += ends[done - 1]
        self.loss_sum, self.error_sum = loss_sum, error_sum
        self.shown_loss[0] = loss_sum / max(1, done)
        return ended, done
