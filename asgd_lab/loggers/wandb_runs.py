"""Weights & Biases: each run is a run of the tool, in its own place (WANDB_DIR, or the folder wandb here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asgd_lab.loggers.base import End, LoggedRun, Logger
from asgd_lab.record.scalar_curves import MINIBATCHES, STEP, VERSION, Point

PROJECT = "asgd-lab"
_EXIT = {"done": 0, "failed": 1, "interrupted": 130}


class WeightsAndBiases(Logger):
    """runs of Weights & Biases, with its own variables WANDB_MODE, WANDB_PROJECT and so on"""

    called = "wandb"
    needs = ("wandb",)
    packages = "wandb"
    most_points = 500

    def begin(self, run: LoggedRun) -> str:
        """Begin a run; it is not the process's global one, so the caller's own run goes on."""
        import os

        import wandb

        # No look at the program around it: neither its output, nor its sources, nor the machine's load.
        settings = wandb.Settings(
            console="off", silent=True, save_code=False, disable_git=True, disable_job_creation=True,
            x_disable_stats=True,
        )  # fmt: skip
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=run.group, name=run.name,
            config={**run.hparams, "run_dir": str(run.path.absolute())}, reinit="create_new", settings=settings,
        )  # fmt: skip
        for axis in (MINIBATCHES, STEP, VERSION):
            self._run.define_metric(axis, hidden=True)
        self._tags: set[str] = set()
        return str(self._run.settings.sync_dir if self._run.offline else self._run.url)

    def log(self, points: Sequence[Point]) -> None:
        rows: dict[tuple[str, int], dict[str, float]] = {}  # one row for all curves with a value there
        for tag, axis, step, time_s, value in points:
            if tag not in self._tags:
                self._tags.add(tag)
                self._run.define_metric(tag, step_metric=axis)
            rows.setdefault((axis, step), {}).update({tag: value, axis: step, "time_s": time_s})
        for row in rows.values():
            self._run.log(row)

    def end(self, status: End, final: Mapping[str, float]) -> None:
        self._run.summary.update(dict(final))
        self._run.finish(exit_code=_EXIT[status])
