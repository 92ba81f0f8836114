"""A run executed again in its recorded order, with other versions at its fetches.

The server hears the recorded messages, with their recorded losses and times. So its leases, its drops, its merges, its
stops and its end are those of the record; only vectors differ. P is the length of the flat vector.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm, build_budget, build_server, build_worker, initial_parameters
from asgd_lab.backends.event_log import Attach, Digest
from asgd_lab.backends.failing import evaluation_failed
from asgd_lab.backends.replayed_worker import Differs, name
from asgd_lab.counterfactual.course import Course, Event
from asgd_lab.counterfactual.doses import Fetched, Targets, Window
from asgd_lab.counterfactual.lives import AtFetchedPoint, Life
from asgd_lab.counterfactual.looks import Looker
from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.algorithms import Momentum
from asgd_lab.protocol.messages import (
    DROPPED,
    KEPT,
    NOWHERE,
    Ack,
    Answer,
    FetchRequest,
    Grant,
    Join,
    Leave,
    Message,
    PushRequest,
)
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.rules import Context, Rule, Scaled, State, Workspace, chain
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Learner, Task
from asgd_lab.users_errors import failing


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of an execution against the record, beside its fetches and its seed."""

    rules_see_recorded: bool = True
    """Whether rules see the recorded staleness of a push, and not that of this execution."""
    drift: bool = True
    """Whether each local step begins where the last one ended, and not at the fetched point."""
    momentum_at_fetch: Momentum | None = None
    """The fate of the local optimizer's state at a fetch; None: as in the scenario."""
    shares: Mapping[int, float] | None = None
    """A factor on the updates of each worker; None: 1."""


AS_RECORDED = Changes()


@dataclass(slots=True)
class Pushes:
    """Counts of an execution's pushes that went into versions, and of the others."""

    applied: int = 0
    dropped: int = 0
    staleness: int = 0  # the sum over the applied ones
    most: int = 0

    @property
    def mean(self) -> float:
        """Mean staleness of the applied pushes."""
        return self.staleness / self.applied if self.applied else 0.0


class Rerun:
    """A server that hears a course, and workers that do the work of its pushes."""

    def __init__(
        self, course: Course, scenario: Scenario, task: Task, targets: Targets | None = None,
        changes: Changes = AS_RECORDED, is_checked: bool = False, looks_every: int | None = None,
    ) -> None:  # fmt: skip
        """`targets` of the fetches; None: the recorded versions, of a task without vectors. With `is_checked` every
        push must be the recorded one. `looks_every`: one push of so many is looked at.
        """
        self._course, self._task, self._targets, self._changes = course, task, targets, changes
        self._is_checked = is_checked
        algorithm = build_algorithm(scenario)
        rule = chain(algorithm.rule) if algorithm.rule.on_each else algorithm.rule
        self._needs_center = rule.needs_center
        if changes.momentum_at_fetch is not None:
            algorithm = replace(algorithm, momentum_at_fetch=changes.momentum_at_fetch)
        self._algorithm = replace(algorithm, rule=_seen(rule, self._context))
        self._initial = initial_parameters(scenario, task)
        # A real run's server computes on the host; a simulated one, where its workers do.
        start = self._initial.cpu() if scenario.backend.execution.logged else self._initial
        self._mailboxes: dict[int, Tensor] = {}
        self.server = build_server(
            task, self._algorithm, build_budget(scenario), start.clone(), self._mailboxes, workers=scenario.workers
        )
        self._lives: dict[int, Life] = {}
        self._first: Learner | None = None  # of worker 0: evaluations use its buffers
        self._bases: dict[tuple[int, int, int], int] = {}  # of pushes that have not ended: oldest version, here
        self._recorded_bases: dict[tuple[int, int, int], int] = {}
        self._centers: dict[int, Tensor] = {}  # (P,) of each worker, for rules that need it
        self._needed = (
            Counter() if targets is None else Counter((fetch[3], version) for fetch, version in targets.items())
        )
        self._kept: dict[tuple[int, int], Tensor] = {}  # versions that a later fetch brings, by part and number
        self.most_kept = 0
        self.looker = None if looks_every is None else Looker(task, self._initial, looks_every)
        self._granted_ns: dict[Fetched, int] = {}  # when a fetch was granted that is not used yet
        self._brought: dict[int, tuple[int, int]] = {}  # by worker: the version of its last fetch, and its time
        self.windows: list[Window] = []
        self.pushes = Pushes()
        self._now_ns = 0
        self._losses: list[tuple[int, float]] = []  # minibatches and mean loss of each push

    @property
    def parameters(self) -> Tensor:
        """(P,) the newest version."""
        return self.server.parameters.current if self.server.parameters is not None else torch.empty(0)

    def run(self, watch: Callable[[int], None] | None = None) -> None:
        """Execute all events; Differs if the record cannot be followed. `watch` is called with the number done."""
        for index, event in enumerate(self._course.events):
            if watch is not None and index % 64 == 0:
                watch(index)
            try:
                self._tell(event)
            except (Differs, ProtocolError) as error:
                raise Differs(f"event {index} ({type(event.message).__name__}): {error}") from error

    def evaluate(self) -> dict[str, float]:
        """Metrics of the last version, and `train_loss`, the mean over the last tenth of the minibatches pushed.

        `RunFailed` if a user's code cannot evaluate it.
        """
        params = self.parameters.clone().to(self._initial.device)
        try:
            buffers = {} if self._first is None else self._first.buffers()
            found = {f"{split}_{metric}": value for split, metric, value in self._task.evaluate(params, buffers)}
        except Exception as error:
            raise evaluation_failed(error) from error
        left = math.ceil(sum(count for count, _ in self._losses) / 10)
        total = weight = 0.0
        for count, loss in reversed(self._losses):
            if weight >= left:
                break
            total, weight = total + count * loss, weight + count
        return found | {"train_loss": total / weight if weight else math.nan}

    # ------------------------------------------------------------------ events

    def _tell(self, event: Event) -> None:
        message, self._now_ns = event.message, event.now_ns
        if isinstance(message, Digest):
            self._check_digest(message)
            return
        if isinstance(message, FetchRequest | PushRequest | Leave | Attach) and message.worker not in self._lives:
            raise Differs(f"worker {message.worker} is not there")
        if isinstance(message, Attach):
            self._lives[message.worker] = self._resumed(self._lives[message.worker])
            return
        if isinstance(message, PushRequest):
            self._work(message)
        elif isinstance(message, Leave):
            self._lives.pop(message.worker).client.close()
        answers = self.server.hear(message, event.now_ns)
        if isinstance(message, Join):
            self._lives[message.worker] = self._life(message.worker)
        self._check(event, message, answers)
        for answer in answers:
            self._deliver(answer)

    def _life(self, worker: int) -> Life:
        buffers = [torch.zeros_like(self._initial) for _ in range(self._algorithm.depth)]
        with failing(f"worker {worker}: its learner", passed=True):  # it is tried with minibatches, which may diverge
            entry = build_worker(self._task, self._algorithm, worker, self._initial, buffers)
        incarnation, pushes = self.server.standing(worker)
        entry.client.begin(incarnation, pushes, self.server.taken(worker))
        if worker == 0:
            self._first = entry.learner
        vectors = entry.replica.vectors
        steps = None if self._changes.drift or vectors is None else AtFetchedPoint(vectors.params)
        return Life(entry, self._course.stopped.get((worker, incarnation), {}), self._bring, steps)

    def _resumed(self, before: Life) -> Life:
        """A life in a new process, restored from a checkpoint."""
        before.rest()
        life, old = self._life(before.replica.worker), before.replica
        life.client.resume(*before.client.place())
        if life.replica.vectors is not None and old.vectors is not None and old.unpushed:
            life.replica.vectors.restore([vector.clone() for vector in old.vectors.kept()])
        for mine, theirs in zip(life.replica.codec_state, old.codec_state, strict=True):
            mine.copy_(theirs)
        life.learner.load({name: value.clone() for name, value in before.learner.state().items()})
        life.answered_by(before)
        before.client.close()
        return life

    def _work(self, recorded: PushRequest) -> None:
        """Let the worker do the work of this push."""
        life = self._lives[recorded.worker]
        made = life.pull(recorded)
        if self._is_checked:
            _compare(made, recorded)
        push = recorded.worker, recorded.number, recorded.part
        self._bases[push], self._recorded_bases[push] = made.base, recorded.base
        self._losses.append((made.steps, made.loss))
        if self.looker is not None and recorded.part < 0 and made.base == self._brought[recorded.worker][0]:
            self._look(self.looker, life, made)
        if life.replica.updates and life.replica.vectors is not None:
            update = life.replica.updates[made.buffer].to(self.parameters.device)
            if self._changes.shares is not None and recorded.part <= 0:
                update.mul_(self._changes.shares.get(recorded.worker, 1.0))
            self._mailboxes[recorded.worker] = update

    def _look(self, looker: Looker, life: Life, made: PushRequest) -> None:
        """Look at a push all of whose work began at one fetch."""
        assert life.replica.vectors is not None
        waited_ns = self._now_ns - self._brought[made.worker][1]
        staleness = self.server.version - made.base
        center, newest = life.replica.vectors.center, self.parameters.to(self._initial.device)
        looker.look(made, life.replica.minibatches - made.steps, center, newest, staleness, waited_ns)

    def _deliver(self, answer: Answer) -> None:
        if isinstance(answer, Ack) and answer.version != KEPT:
            push = answer.worker, answer.number, answer.part
            base, recorded = self._bases.pop(push), self._recorded_bases.pop(push)
            if answer.version == DROPPED:
                self.pushes.dropped += 1
            else:
                staleness = answer.staleness + recorded - base
                self.pushes.applied += 1
                self.pushes.staleness += staleness
                self.pushes.most = max(self.pushes.most, staleness)
        elif isinstance(answer, Grant) and answer.slot != NOWHERE:
            self._granted_ns[answer.worker, answer.incarnation, answer.number, answer.part] = self._now_ns
        life = self._lives.get(answer.worker)
        if life is not None and life.replica.incarnation == answer.incarnation:
            life.hear(answer)

    # ------------------------------------------------------------------ versions

    def _bring(self, replica: Replica, grant: Grant) -> int:
        """Give the replica the vector that this fetch brings here; return its version."""
        part = grant.part
        fetch: Fetched = (replica.worker, grant.incarnation, grant.number, part)
        newest = self.server.parts[part].version
        if self._targets is None:
            self.windows.append(Window(fetch, grant.version, newest))
            return grant.version
        target = self._targets[fetch]
        self._needed[part, target] -= 1
        self._brought[replica.worker] = target, self._granted_ns.pop(fetch)
        assert self.server.parameters is not None
        vector = self.server.parameters.parts[part].current if target == newest else self._kept[part, target]
        own = vector.to(self._initial.device, copy=True)
        replica.receive(part, own)
        if self._needs_center:
            self._centers[replica.worker] = own
        if self._needed[part, target] <= 0:
            self._kept.pop((part, target), None)
        return target

    def _context(self, context: Context) -> Context:
        """Keep the version that a step replaces, if a later fetch brings it; return the context as the rule sees it."""
        version = context.pushes[0].part, context.version
        if self._needed[version] > 0 and version not in self._kept:
            self._kept[version] = context.current.clone()
            self.most_kept = max(self.most_kept, len(self._kept))
        if self._needs_center:  # of an undivided vector, between a fetch and the push that ends its round
            context = context._replace(center=self._centers.__getitem__)
        if self._changes.rules_see_recorded:
            return context
        return context._replace(
            pushes=[each._replace(base=self._bases[each.worker, each.number, each.part]) for each in context.pushes]
        )

    # ------------------------------------------------------------------ comparisons

    def _check(self, event: Event, message: Message, answers: list[Answer]) -> None:
        """Compare the immediate answer to a request with the recorded one."""
        if not event.is_answer_known or not isinstance(message, FetchRequest | PushRequest):
            return
        kind = Grant if isinstance(message, FetchRequest) else Ack
        exchange = message[:3], message.part
        own = [_facts(each) for each in answers if type(each) is kind and (each[:3], each.part) == exchange]
        if own[:1] != ([] if event.answer is None else [_facts(event.answer)]):
            raise Differs(f"{name(message)} of worker {message.worker} was answered otherwise in the record")

    def _check_digest(self, message: Digest) -> None:
        is_due = self._is_checked and self.server.version == message.version
        if is_due and event_log.digest(self.parameters) != message.crc:
            raise Differs(f"version {message.version}: the parameters are others")


def _facts(answer: Answer) -> tuple[int, int]:
    """The version of a grant or of a push, and the steps or the staleness."""
    if isinstance(answer, Grant):
        return answer.version, answer.steps
    return (answer.version, answer.staleness) if isinstance(answer, Ack) else (0, 0)


def _compare(made: PushRequest, recorded: PushRequest) -> None:
    """Differs if a push is not the recorded one, to the last bit of its loss."""
    for field in ("number", "base", "steps", "loss", "error", "buffer", "stopped", "wasted", "returned"):
        here, there = getattr(made, field), getattr(recorded, field)
        if here != there and not (math.isnan(here) and math.isnan(there)):
            raise Differs(
                f"{name(recorded)} of worker {recorded.worker}: its {field} is {here!r} here and {there!r} there"
            )


def _seen(rule: Rule, context: Callable[[Context], Context]) -> Rule:
    """The rule, with another context; also its links on each push."""

    def step(update: Scaled, before: Context, state: State, fresh: State, workspace: Workspace) -> Scaled:
        return rule.step(update, context(before), state, fresh, workspace)

    return replace(rule, step=step, each=None if rule.each is None else _seen(rule.each, context))
