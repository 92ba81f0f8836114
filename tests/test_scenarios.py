"""The scenarios that come with the project: each is valid, explained, and runs; what its comments claim holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab import sweep_figure, sweep_tables
from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.record.directory_names import file_name
from asgd_lab.scenario import Document, Point
from asgd_lab.sweep_tables import Swept

FILES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.yaml"), key=lambda path: path.name)
NAMES = [path.stem for path in FILES]
MINIBATCHES = 240


def points(name: str, overrides: dict[str, Any] | None = None) -> list[Point]:
    (path,) = (path for path in FILES if path.stem == name)
    return Document.read(path).points(overrides)


def only(name: str, overrides: dict[str, Any]) -> Point:
    (point,) = points(name, overrides)
    return point


def backend(name: str) -> str:
    return points(name)[0].scenario.backend.name


SIMULATED = [name for name in NAMES if backend(name) == "sim"]


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_is_valid_named_like_its_file_and_explained(name: str) -> None:
    for point in points(name):
        assert point.scenario.name == name
        assert point.scenario.description
    (path,) = (path for path in FILES if path.stem == name)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert text.splitlines()[0].endswith("?")
    assert all(f"\n# {part}" in text for part in ("Look at", "Expected"))
    assert re.search(rf"asgd-lab (run|compare) {name}\b", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_point_of_a_scenario_runs_and_its_figure_is_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, for some minibatches; points of real processes have a test of their own."""
    monkeypatch.syspath_prepend(str(FILES[0].parent))  # for the code of bring-your-own
    small: dict[str, Any] = {"budget": {"minibatches": MINIBATCHES}}
    scenario = points(name)[0].scenario
    if name not in SIMULATED:
        small |= {"backend": "sim", "hardware.compute": {"step_s": getattr(scenario.task, "step_s", None) or 0.01}}
    if name == "ilsvrc-2012":  # nothing but its figure is tried without its images
        small |= {"task": {"name": "classification", "dataset": "digits"}, "algorithm.n_sync": 10}
    elif scenario.task.name == "classification" and ":" not in scenario.task.dataset:  # type: ignore[attr-defined]
        small |= {"task.dataset": "digits"}
    if scenario.evaluate is not None:
        small |= {"evaluate.every_minibatches": MINIBATCHES}
    summaries, paths = {}, {}
    for point in points(name, small):
        paths[point.name] = tmp_path / file_name(point.name or "point")
        summary = summaries[point.name] = execute(point.scenario, paths[point.name])
        assert summary["status"] == "done"
        assert summary["minibatches"] == MINIBATCHES
        assert bool(summary["final"]) == (scenario.task.name != "timing")
    assert scenario.figure not in (None, "none")
    drawn = sweep_figure.draw(
        scenario, sweep_tables.groups(map(Swept.of, points(name, small)), summaries, paths), tmp_path
    )
    assert [path.name for path in drawn] == [f"{scenario.figure}.png", f"{scenario.figure}.pdf"]
    assert all(path.stat().st_size > 5_000 for path in drawn)


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("name", ["quickstart", "does-the-server-saturate", "up-to-32-workers"])
def test_a_scenario_runs_with_real_processes(name: str, tmp_path: Path) -> None:
    point = only(name, {"budget": {"minibatches": 40}, "algorithm.n_sync": 10, "workers": 2})
    summary = execute(point.scenario, tmp_path / "run")
    assert summary["status"] == "done"
    assert summary["minibatches"] == 40
    assert ("overruns" in summary) == (name != "quickstart")


# What the comments promise of the simulated ones, wherever it costs little to ask.


@pytest.mark.parametrize("distribution", ["constant", "lognormal", "exponential"])
def test_how_stale_is_workers_minus_one_whatever_the_distribution(distribution: str, tmp_path: Path) -> None:
    point = only("how-stale", {"hardware.compute.distribution": distribution, "workers": 8})
    staleness = execute(point.scenario, tmp_path / "run")["staleness"]
    assert staleness["mean"] == pytest.approx(7, abs=0.01)
    share = {int(k): count / point.scenario.budget.updates for k, count in staleness["histogram"].items()}  # type: ignore[operator]
    if distribution == "constant":
        assert share[7] > 0.999
    if distribution == "exponential":  # geometric
        assert [share[k] for k in range(4)] == pytest.approx([(1 / 8) * (7 / 8) ** k for k in range(4)], rel=0.1)


def test_a_server_whose_queue_holds_fetches_makes_convoys(tmp_path: Path) -> None:
    def run(one_sided: bool) -> dict[str, Any]:
        overrides: dict[str, Any] = {
            "backend": "sim",
            "algorithm.n_sync": 5,
            "workers": 8,
            "budget.seconds": 25,
            "task": {"name": "timing", "size_bytes": 1000, "step_s": 0.01},
            "hardware.server.one_sided_fetch": one_sided,
        }
        return execute(only("does-the-server-saturate", overrides).scenario, tmp_path / str(one_sided))

    queued, one_sided = run(False), run(True)
    # A convoy's round is Z + M S, its staleness (M - 1)/2; without one the server is the limit.
    round_s, service_s = 0.054 + 8 * 0.02, 0.02
    assert queued["staleness"]["mean"] == pytest.approx(3.5, abs=0.05)
    assert queued["minibatches_per_s"] == pytest.approx(8 * 5 / round_s, rel=0.04)
    assert one_sided["staleness"]["mean"] == pytest.approx(7, abs=0.1)
    assert one_sided["minibatches_per_s"] == pytest.approx(5 / service_s, rel=0.04)


@pytest.mark.parametrize(
    ("workers", "server", "computing"),
    [
        (1, {}, 0.854),
        (32, {}, 0.74),
        (1, {"push_s": 0.0448, "fetch_s": 0.0353}, 1 - 0.136),  # one thread that receives, applies and sends
        (32, {"push_s": 0.0448, "fetch_s": 0.0353}, 1.0263 / (32 * 0.0801)),
    ],
)
def test_hardware_alone_loses_a_seventh_of_the_time_at_n_sync_1(
    workers: int, server: dict[str, float], computing: float, tmp_path: Path
) -> None:
    overrides: dict[str, Any] = {"algorithm.n_sync": 1, "workers": workers}
    if server:
        nothing = dict.fromkeys(("push_bytes_per_s", "fetch_bytes_per_s", "bandwidth_bytes_per_s"))
        overrides |= {"hardware.link.bandwidth_bytes_per_s": None, "hardware.server": {**nothing, **server}}
    summary = execute(only("where-does-time-go", overrides).scenario, tmp_path / "run")
    spent = summary["time"]["mean"]
    assert spent["compute"] / sum(spent.values()) == pytest.approx(computing, abs=0.01)


def test_a_server_that_takes_its_time_for_a_fetch_dissolves_a_jam(tmp_path: Path) -> None:
    def rate(fetch_s: float, step_s: float, **compute: Any) -> float:
        overrides = {"hardware.server.fetch_s": fetch_s, "hardware.compute.step_s": step_s, "budget.updates": 1600}
        overrides |= {f"hardware.compute.{key}": value for key, value in compute.items()}
        path = tmp_path / str((fetch_s, step_s, *compute.values()))
        summary = execute(only("can-a-slower-server-be-faster", overrides).scenario, path)
        return float(summary["minibatches_per_s"])

    # In the jam all do the same at the same time: Z + 16 (2T + S) a round. Faster GPUs bring it about.
    assert rate(0, 0.02, cv=1e-9) == pytest.approx(160, rel=0.002)
    jam = rate(0, 0.02)
    assert jam == pytest.approx(179, rel=0.03)
    assert rate(0, 0.04) > 1.45 * jam
    assert rate(0.01, 0.04) == pytest.approx(16 / 0.46 * 10, rel=0.04)
    assert rate(0.01, 0.02) == pytest.approx(500, rel=0.02)  # the link is full


def test_the_best_n_sync_of_the_trade_off_is_30(tmp_path: Path) -> None:
    def below_for_good_s(n_sync: int) -> float:
        path = tmp_path / str(n_sync)
        execute(only("how-much-n_sync", {"algorithm.n_sync": n_sync, "budget.seconds": 20}).scenario, path)
        evals = tables.read(path, "evals")
        return float(evals.loc[evals["value"] > 1e-5, "time_s"].max())

    seconds = {n_sync: below_for_good_s(n_sync) for n_sync in (3, 10, 30, 100)}
    assert min(seconds, key=lambda n_sync: seconds[n_sync]) == 30
    assert seconds[3] > 19  # not there at all


def test_whole_deltas_of_eight_workers_break_down_and_eighths_learn(tmp_path: Path) -> None:
    errors = {}
    for rule in ("add", "scale"):
        algorithm = {"name": "asgd", "n_sync": 10, "rule": [rule]}
        point = only("which-server-rule", {"algorithm": algorithm, "budget.minibatches": 1600})
        errors[rule] = execute(point.scenario, tmp_path / rule)["final"]["test_error"]
    assert errors["add"] > 0.3
    assert errors["scale"] < 0.1


def test_lock_step_takes_longer_for_the_same_minibatches(tmp_path: Path) -> None:
    timing = {"task": {"name": "timing", "size_bytes": 1000, "step_s": 0.01}, "evaluate": None}
    seconds = [
        execute(
            only("which-server-rule", {"algorithm": {"name": name, "n_sync": 10}, **timing}).scenario, tmp_path / name
        )["makespan_s"]
        for name in ("asgd", "sync_sgd")
    ]
    assert seconds[1] > 1.08 * seconds[0]


def test_warm_start_does_not_tame_a_bold_server(tmp_path: Path) -> None:
    overrides: dict[str, Any] = {
        "algorithm.rule": [{"name": "scale", "factor": 0.5}],
        "warm_start": {"minibatches": 500},
        "budget.minibatches": 1200,
    }
    execute(only("cold-or-warm-start", overrides).scenario, tmp_path / "run")
    evals = tables.read(tmp_path / "run", "evals")
    losses = evals[(evals["metric"] == "loss") & (evals["split"] == "test")]["value"].to_numpy()
    assert losses[0] < 0.2
    assert np.max(losses) > 0.5
