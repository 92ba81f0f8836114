"""A user's script that names every public name, as `mypy --strict` reads it; it is checked, and not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

import asgd_lab
from asgd_lab import extending as lab

BOWL: dict[str, Any] = {"name": "bowl", "task": {"name": "quadratic", "curvature": [1.0]}}


class Fresh(lab.Gate):
    """A gate of one's own."""

    most: int = 1

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.APPLY if server.version - push.base <= self.most else lab.drop()


def watch(progress: asgd_lab.Progress) -> None:
    seconds: float = progress.seconds
    print(seconds, progress.minibatches)


def of_points(name: str, progress: asgd_lab.Progress) -> None:
    print(name, progress.version)


def one() -> asgd_lab.Run:
    algorithm = asgd_lab.Algorithm(gate=Fresh(), n_sync=2)
    run = asgd_lab.run({**BOWL, "algorithm": algorithm}, {"workers": 2}, out=Path("out"), watch=watch)
    effects: pd.DataFrame = run.effects
    params: npt.NDArray[np.float32] = run.params
    model: nn.Module = run.model()
    figures: list[Figure] = [run.plot.timeline(0.0, 1.0), run.plot.curves(x="time_s"), run.plot.staleness()]
    figures.append(run.plot.where_time_goes())
    again: asgd_lab.Replay = run.replay()
    same: bool = again.same_bits and asgd_lab.replay(run).same_bits
    files: list[Path] = [run.export("model.pt"), run.tensorboard()]
    scenario: asgd_lab.Scenario = run.scenario
    print(effects, params.shape, model, figures, same, files, scenario.workers, run.status, run.warnings, run.manifest)
    print(run.evals, run.minibatches, run.summary["makespan_s"])
    return asgd_lab.Run.open(run.path)


def several() -> asgd_lab.Sweep:
    swept = asgd_lab.sweep("how-stale", seeds=3, jobs=2, watch=of_points)
    for run in swept:
        print(run.path)
    first: asgd_lab.Run = swept[0]
    last: list[asgd_lab.Run] = swept[-2:]
    best: asgd_lab.Run = swept[{"workers": 2}]
    tables: list[pd.DataFrame] = [swept.frame, swept.means, swept.differences]
    figure: Figure = swept.plot.answer("speedup")
    print(first, last, best, tables, figure, swept.names, swept.failures, len(swept))
    return asgd_lab.Sweep.open(swept.path)


def machines() -> None:
    hardware: dict[str, Any] = asgd_lab.preset("laptop")
    compared: asgd_lab.Comparison = asgd_lab.compare(["quickstart", BOWL], repeats=2, say=print)
    print(hardware, compared.frame, compared.plot.speedup(), asgd_lab.Comparison.open(compared.path))
    calibration: asgd_lab.Calibration = asgd_lab.calibrate("quickstart", say=print)
    print(calibration.hardware, calibration.step_s, calibration.save("mine.yaml"))


def answers() -> Path:
    explained: asgd_lab.Explanation = asgd_lab.explain("runs/one", doses=(1.0, 0.0), seeds=5, causes=["staleness"])
    print(explained)
    for progress in asgd_lab.watch("runs/elsewhere"):
        watch(progress)
    return asgd_lab.report("runs/one", asgd_lab.Sweep.open("runs/swept"), out="page")


def checked() -> bool:
    try:
        with asgd_lab.trusting(False):
            found: asgd_lab.Validation = asgd_lab.validate(BOWL, {"workers": 2})
    except asgd_lab.ScenarioError as error:
        print(error)
        return False
    except (asgd_lab.RunFailed, asgd_lab.Interrupted) as error:
        print(error.run_dir)
        return False
    names: dict[str, str] = asgd_lab.available("scenarios")
    paths: list[Path] = asgd_lab.new("mine.yaml", "quickstart")
    print(names, paths, asgd_lab.schema()["title"], asgd_lab.__version__)
    return not found.warnings and not found.unchecked
