from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from asgd_lab.errors import ScenarioError
from asgd_lab.figures.timeline import timeline, timelines
from asgd_lab.record import tables
from tests.backends.scenarios import TIMING
from tests.backends.scenarios import run as execute
from tests.figures.drawn import labels, overflows

SHARED = {"bandwidth_bytes_per_s": 1e6, "shared": True, "latency_s": 1e-5}


def simulated(path: Path, **parts: Any) -> Path:
    hardware = {"link": SHARED, "server": {"push_s": 5e-4}}
    parts = {"task": TIMING, "backend": "sim", "workers": 3, "budget": {"updates": 30}, "hardware": hardware} | parts
    execute(path, **parts)
    return path


def boxes(axes: Axes) -> int:
    return sum(len(each.get_paths()) for each in axes.collections if isinstance(each, PolyCollection))


def test_every_effect_of_the_stretch_is_drawn_and_every_push_has_its_arrow(tmp_path: Path) -> None:
    run = simulated(tmp_path / "run")
    effects = tables.read(run, "effects")
    end_s = float(effects["end_s"].max())
    fig = timeline(run, 0.0, end_s)
    main, up, down = fig.axes
    assert boxes(main) == len(effects)
    (arrows,) = (each for each in main.collections if isinstance(each, LineCollection))
    segments = np.array(arrows.get_segments())
    applied = effects[effects["kind"] == "apply"].sort_values("start_s")
    assert sorted(segments[:, 1, 0]) == pytest.approx(applied["start_s"].tolist())
    assert (segments[:, 0, 0] <= segments[:, 1, 0] + 1e-12).all()
    assert [text.get_text() for text in main.get_yticklabels()] == ["worker 0", "worker 1", "worker 2", "server"]
    assert [axes.get_ylabel() for axes in (up, down)] == ["transfers\nup", "transfers\ndown"]
    assert labels(fig)[:2] == ["training", "rest of a push or fetch"]
    assert overflows(fig) == []


def test_the_title_says_how_busy_workers_and_server_are(tmp_path: Path) -> None:
    hardware = {"server": {"push_s": 1e-3}}
    run = simulated(tmp_path / "run", hardware=hardware, workers=1, algorithm={"name": "asgd", "n_sync": 1})
    title = timeline(run, 0.0, 0.02).axes[0].get_title(loc="left")
    assert title == "Workers train 50% of this time, and the server is busy 50% of it"


def test_exchanges_beside_training_are_drawn_on_lanes_below_their_worker(tmp_path: Path) -> None:
    run = simulated(tmp_path / "run", algorithm={"name": "downpour", "n_sync": 1, "depth": 2})
    main = timeline(run, 0.0, 0.02).axes[0]
    assert [text.get_text() for text in main.get_yticklabels()] == ["worker 0", "worker 1", "worker 2", "server"]
    lines = {
        round(float(y), 3) for each in main.collections[:-1] for path in each.get_paths() for y in path.vertices[:, 1]
    }
    assert len(lines) > 2 * 4


def test_runs_stand_one_below_the_other(tmp_path: Path) -> None:
    runs = {
        "one": simulated(tmp_path / "a"),
        "other": simulated(tmp_path / "b", hardware={"link": {"latency_s": 1e-4}}),
    }
    fig = timelines(runs, 0.0, 0.01)
    titles = [title for axes in fig.axes if (title := axes.get_title(loc="left"))]
    assert [title.split(":")[0] for title in titles] == ["one", "other"]
    assert len(fig.axes) == 3 + 1  # without bandwidth a transfer takes no time
    assert overflows(fig) == []


@pytest.mark.parametrize("workers", [1, 40])
def test_few_and_many_workers_fit(workers: int, tmp_path: Path) -> None:
    fig = timeline(simulated(tmp_path / "run", workers=workers, budget={"updates": 2 * workers}), 0.0, 0.01)
    assert overflows(fig) == []
    assert len(fig.axes[0].get_yticklabels()) <= 18


def test_a_stretch_in_which_nothing_happened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="has no effects between 100 s and 101 s"):
        timeline(simulated(tmp_path / "run"), 100, 101)
    with pytest.raises(ScenarioError, match="has no effects"):
        timeline(simulated(tmp_path / "summary", record="summary"), 0, 1)
