"""A study of one recorded run: the self-check, and then every arm, one after the other."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from asgd_lab import tasks
from asgd_lab.backends import devices, earlier
from asgd_lab.backends.build import build_algorithm, build_task
from asgd_lab.backends.replayed_worker import Differs
from asgd_lab.backends.settings import settled
from asgd_lab.counterfactual import arms, course, doses, files
from asgd_lab.counterfactual.arms import LOCK_STEP, PLAYERS, STALENESS, TOGETHER, WATERFALL, Arm
from asgd_lab.counterfactual.explanation import Explanation, Facts
from asgd_lab.counterfactual.looks import Look
from asgd_lab.counterfactual.rerun import AS_RECORDED, Changes, Rerun
from asgd_lab.counterfactual.settings import Settings
from asgd_lab.errors import RunFailed, ScenarioError, shown
from asgd_lab.metric_words import higher_is_better
from asgd_lab.protocol.messages import PushRequest
from asgd_lab.recorded_code import as_recorded
from asgd_lab.replays import recorded_scenario
from asgd_lab.scenario import Scenario
from asgd_lab.task_keys.toys import TimingKeys
from asgd_lab.tasks.own_batches import Stream
from asgd_lab.tasks.timing import TimingTask

MOST_LOOKS = 200  # pushes of the record whose gradients are compared
Watch = Callable[[int, int], None]
"""Called with the number of events that are done, and of all."""


def explain(
    run_dir: Path, settings: Settings, watch: Watch | None = None, say: Callable[[str], Any] | None = None,
    into: Path | None = None,
) -> Explanation:  # fmt: skip
    """Execute the run in `run_dir` again at every arm; a `ScenarioError` says in a line why it cannot be.

    It is one, too, if the files of the explanation could not be written `into` the folder given.
    """
    folder = None if into is None else Path(os.path.abspath(into))  # the run's code may belong to another folder
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        if say is not None:
            say(line)

    with as_recorded(Path(run_dir), note) as (there, manifest), settled():
        scenario = recorded_scenario(there, manifest, earlier.inputs_of(manifest))
        if folder is not None:
            files.check(folder)
        found = _Study(there, scenario, settings).run(watch or (lambda done, total: None))
    return found.noting(notes)


class _Study:
    def __init__(self, run_dir: Path, scenario: Scenario, settings: Settings) -> None:
        self._run_dir, self._settings = run_dir, settings
        self._course = course.of_run(run_dir, scenario)
        self._scenario = self._course.scenario
        for rate in settings.rates:
            arms.with_rate(self._scenario, rate)  # ScenarioError if it cannot be
        arms.check_causes(self._scenario, settings.causes)
        self._data = tasks.load(self._scenario.task)
        self._tasks: dict[tuple[float, int], Any] = {}
        task = build_task(self._scenario, self._data)
        batches = getattr(task, "batches", None)
        if batches is not None and isinstance(batches(0, torch.device("cpu")), Stream):
            what = "reads a stream: its minibatches are no function of seed, worker and step"
            raise ScenarioError(f"{run_dir}: task {self._scenario.task.name} {what}, so they cannot be kept")
        self._tasks[1.0, self._scenario.seed] = task
        try:
            task.check(gradients=True, device=devices.home(self._scenario))
            self._can_look = True
        except ScenarioError:  # such as a step of its own, which has no gradient to add up
            self._can_look = False
        dry = Rerun(self._course, self._scenario, TimingTask(TimingKeys(size_bytes=task.size_bytes)))
        self._followed(dry)
        self._windows = dry.windows

    def run(self, watch: Watch) -> Explanation:
        """Check dose 1 against the record, and execute the arms."""
        events, planned = len(self._course.events), self._planned()
        done = 0

        def progress(index: int) -> None:
            watch(done + index, events * (len(planned) + 1))

        checked = self._check(progress)
        metrics = [*checked.evaluate()]
        facts = self._facts(checked, self._metric(metrics))
        done += events
        rows = []
        for arm in planned:
            rows.append(self._row(arm, metrics, progress))
            done += events
        watch(done, events * (len(planned) + 1))
        looks = () if checked.looker is None else checked.looker.looks
        return Explanation(pd.DataFrame(rows), facts, pd.DataFrame(looks, columns=Look._fields))

    def _metric(self, metrics: Sequence[str]) -> str:
        """The metric that was asked for, or the first loss; a `ScenarioError` if it is none of these."""
        asked = self._settings.metric
        if asked is None:
            return next((name for name in metrics if name.endswith("_loss")), metrics[0])
        if asked not in metrics:
            raise ScenarioError(f"metric: there is no {shown(asked)}; the run has {', '.join(metrics)}")
        return asked

    def _planned(self) -> list[Arm]:
        """The arms: for each seed and rate, every dose of staleness, and each other cause removed."""
        chosen = self._settings
        own = self._scenario.seed
        ends = sorted({1.0, *(chosen.doses if STALENESS in chosen.causes else ())}, reverse=True)
        if STALENESS in chosen.causes:
            ends = sorted({*ends, 0.0}, reverse=True)
        others = [cause for cause in chosen.causes if cause not in (STALENESS, WATERFALL)]
        if WATERFALL in chosen.causes:
            others = [*dict.fromkeys([*others, *PLAYERS, TOGETHER])]
        return [
            arm
            for seed in range(own, own + chosen.seeds)
            for rate in chosen.rates
            for arm in (
                *(Arm(STALENESS, dose, rate, seed) for dose in ends),
                *(Arm(cause, 0.0, rate, seed) for cause in others),
            )
        ]

    def _check(self, progress: Callable[[int], None]) -> Rerun:
        """Execute dose 1, which must give the record's bits."""
        targets = doses.moved(self._windows, 1.0)
        pushes = sum(isinstance(event.message, PushRequest) for event in self._course.events)
        rerun = Rerun(
            self._course, self._scenario, self._task(1.0, self._scenario.seed), targets, is_checked=True,
            looks_every=max(1, pushes // MOST_LOOKS) if self._can_look else None,
        )  # fmt: skip
        self._followed(rerun, progress)
        final = self._course.final
        if final is not None and rerun.parameters.cpu().numpy().tobytes() != final.tobytes():
            raise RunFailed(f"{self._run_dir}: dose 1 has other final parameters than the record; nothing is explained")
        return rerun

    def _row(self, arm: Arm, names: Sequence[str], progress: Callable[[int], None]) -> dict[str, Any]:
        """The execution of an arm, with metrics of these `names`: NaN if it diverged."""
        scenario = arms.with_rate(self._scenario, arm.rate).model_copy(update={"seed": arm.seed})
        task, changes, targets = self._task(arm.rate, arm.seed), self._changes(arm), self._targets(arm)
        if arm.cause == "placebo":
            task = arms.NextWorkersData(task, scenario.workers)
        rerun = Rerun(self._course, scenario, task, targets, changes)
        metrics = dict.fromkeys(names, math.nan)
        try:
            self._followed(rerun, progress)
            metrics |= rerun.evaluate()
        except RunFailed:
            pass  # it diverged
        staleness = {"staleness": rerun.pushes.mean, "staleness_max": rerun.pushes.most}
        return {**arm._asdict(), **staleness, "versions_kept": rerun.most_kept, **metrics}

    def _followed(self, rerun: Rerun, progress: Callable[[int], None] | None = None) -> None:
        try:
            rerun.run(progress)
        except Differs as error:
            raise ScenarioError(f"{self._run_dir}: cannot be followed in its order: {error}") from error

    def _task(self, rate: float, seed: int) -> Any:
        """The task at a rate with a seed; arms of one rate and seed come one after the other, and share it."""
        if (rate, seed) not in self._tasks:
            scenario = arms.with_rate(self._scenario, rate).model_copy(update={"seed": seed})
            self._tasks = {(rate, seed): build_task(scenario, self._data, checked=True)}
        return self._tasks[rate, seed]

    def _targets(self, arm: Arm) -> doses.Targets:
        if arm.cause in (LOCK_STEP, TOGETHER):
            return arms.in_groups(self._windows, self._scenario.workers)
        return doses.moved(self._windows, arm.dose if arm.cause == STALENESS else 1.0)

    def _changes(self, arm: Arm) -> Changes:
        sees = self._settings.rules_see == "recorded"
        if arm.cause in ("drift", TOGETHER):
            return Changes(sees, drift=False)
        match arm.cause:
            case "momentum":
                resets = build_algorithm(self._scenario).momentum_at_fetch == "reset"
                return Changes(sees, momentum_at_fetch="keep" if resets else "reset")
            case "shares":
                return Changes(sees, shares=arms.equal_shares(self._course))
        return AS_RECORDED if sees else Changes(rules_see_recorded=False)

    def _facts(self, checked: Rerun, metric: str) -> Facts:
        scenario, pushes = self._scenario, checked.pushes
        notes = list(self._course.notes)
        if pushes.dropped:
            notes.append(f"{pushes.dropped:,} of its pushes were dropped, and stay dropped at every dose")
        if scenario.warm_start is not None and scenario.warm_start.run is not None:
            notes.append("its initial parameters are those of another run: other seeds reseed the data alone")
        return Facts(
            run=str(self._run_dir), backend=scenario.backend.name, algorithm=scenario.algorithm.name,
            workers=scenario.workers, seed=scenario.seed, seeds=self._settings.seeds,
            rules_see=self._settings.rules_see, metric=metric,
            higher_is_better=higher_is_better(metric, scenario), pushes=pushes.applied,
            dropped=pushes.dropped, staleness=pushes.mean, compares_final=self._course.final is not None,
            notes=tuple(notes),
        )  # fmt: skip
