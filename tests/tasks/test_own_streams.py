"""A stream with a state outlives its worker, its server and its run: the bits are those of an undisturbed run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.backends.chaos import members
from tests.backends.test_process import nothing_is_left

from .own_classes import Counter, Streamed

__all__ = ["nothing_is_left"]  # a fixture that pytest finds here


class Paced(Streamed):
    """A minibatch takes some milliseconds, so that there is time to kill."""

    def stream(self, worker: int, workers: int, seed: int) -> Any:
        class Slow(Counter):
            def __next__(self) -> Any:
                time.sleep(0.003)
                return super().__next__()

        return Slow(self.plain, worker, workers, seed)


def stated(workers: int) -> Scenario:
    task = {"name": "own", "task": f"{__name__}:Paced", "optimizer": {"name": "SGD", "lr": 0.05}}
    return Scenario.model_validate({
        "name": "stream", "seed": 5, "task": task, "algorithm": {"name": "asgd", "n_sync": 3}, "workers": workers,
        "budget": {"minibatches": 150}, "backend": {"name": "process", "checkpoint": {"every_updates": 5}},
        "faults": {"on_death": "restart"},
    })  # fmt: skip


class Kills:
    """A watch that kills a worker, then the server, and interrupts the run after that."""

    def __init__(self) -> None:
        self.left = [(8, "worker-0"), (16, "server")]
        self.killed: list[str] = []

    def __call__(self, progress: Progress) -> None:
        if self.left and progress.version >= self.left[0][0]:
            found = members(self.left[0][1])
            if found:
                found[0].kill()
                self.killed.append(self.left.pop(0)[1])
        if not self.left and progress.version >= 24:
            raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_goes_on_where_its_run_was_after_every_kill_and_a_resume(tmp_path: Path, workers: int) -> None:
    scenario, kills = stated(workers), Kills()
    assert execute(scenario, tmp_path / "run", kills)["status"] == "interrupted"
    assert kills.killed == ["worker-0", "server"]
    summary = execute(scenario, tmp_path / "run", resume=True)
    assert summary["status"] == "done"
    assert summary["minibatches"] == 150
    assert repeat(scenario, tmp_path / "run").difference is None
    if workers == 1:  # of several, the order of the pushes is another each time
        execute(scenario, tmp_path / "undisturbed")
        assert (final_params(tmp_path / "run") == final_params(tmp_path / "undisturbed")).all()
