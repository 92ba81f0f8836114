"""The Python interface runs scenarios from any source, returns their tables, and prints nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import asgd_lab
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.run import execute
from asgd_lab.figures.evaluations import common_metric
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from tests.api.scenarios import BACKENDS, BOWL, DIGITS, on
from tests.cli.harness import asgd_lab as command


def written(folder: Path, scenario: dict[str, Any]) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(json.dumps(scenario))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run, but the manifest, which tells the time."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def silence(capfd: pytest.CaptureFixture[str]) -> Any:
    """No function of the interface prints anything, nor changes a signal's handler."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_gives_its_tables_its_parameters_and_its_replay_on_every_backend(tmp_path: Path, backend: str) -> None:
    seen: list[Progress] = []
    run = asgd_lab.run(on(backend, DIGITS), out=tmp_path / "run", watch=seen.append)
    assert (run.path, run.status) == (tmp_path / "run", "done")
    assert run.summary["minibatches"] == 40
    assert run.scenario.algorithm.n_fetch == 2
    assert {"fetch", "train", "push"} <= set(run.effects["kind"])
    assert len(run.minibatches) >= 40
    assert set(run.evals["metric"]) == {"error", "loss"}
    assert run.params.shape == (9_610,)
    assert run.params.dtype == np.float32
    assert run.warnings == []
    assert all(isinstance(each, Progress) for each in seen)
    assert (len(seen) > 0) == (backend != "inline")
    model = run.model()
    assert isinstance(model, nn.Module)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    again = run.replay()
    assert again.same_bits, again
    assert again.differences == []


def test_the_command_line_and_every_source_of_a_scenario_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, BOWL)
    assert command("run", path, "--out", "by-command", "--set", "workers=3").status == 0
    capfd.readouterr()
    changes = {"workers": 3}
    asgd_lab.run(str(path), changes, out="by-text")
    asgd_lab.run(path, changes, out="by-path")
    asgd_lab.run(BOWL, changes, out="by-mapping")
    asgd_lab.run(asgd_lab.Scenario.model_validate(BOWL), changes, out="by-object")
    first, *others = [contents(Path(f"by-{how}")) for how in ("command", "text", "path", "mapping", "object")]
    assert len(first) == 7
    assert others == [first] * 4


def test_a_change_of_none_removes_the_key(tmp_path: Path) -> None:
    swept = {**BOWL, "sweep": {"workers": [1, 2]}}
    run = asgd_lab.run(swept, {"sweep": None, "workers": None, "seed": None}, out=tmp_path / "run")
    assert (run.summary["workers"], run.summary["seed"]) == (1, 0)


def test_a_run_without_out_is_below_the_folder_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = asgd_lab.run(BOWL)
    assert run.path.parent == Path("runs/bowl").absolute()
    assert asgd_lab.Run.open(run.path).summary == run.summary


def test_a_sweep_has_a_run_and_a_row_per_point(tmp_path: Path) -> None:
    seen: set[str] = set()
    scenario = {**BOWL, "sweep": {"algorithm.n_sync": [1, 4]}}
    swept = asgd_lab.sweep(
        scenario, {"sweep.workers": [1, 2]}, out=tmp_path / "out", jobs=2, watch=lambda name, _: seen.add(name)
    )
    assert len(swept) == 4
    assert seen == set(swept.names)
    assert swept.names[1] == "algorithm.n_sync=1,workers=2"
    assert list(swept.frame["point"]) == swept.names
    assert list(swept.frame["workers"]) == [1, 2, 1, 2]
    assert swept.failures == {}
    point = swept[{"workers": 2, "algorithm.n_sync": 4}]
    assert point.path == swept[3].path == swept["algorithm.n_sync=4,workers=2"].path
    assert [run.summary["workers"] for run in swept] == [1, 2, 1, 2]
    with pytest.raises(KeyError, match="2 points have these values"):
        swept[{"workers": 2}]
    assert set(swept.means["n"]) == {1}
    seeds = asgd_lab.sweep(BOWL, out=tmp_path / "seeds", jobs=1, seeds=2)
    assert seeds.names == ["seed=3", "seed=4"]
    assert set(seeds.means["n"]) == {2}


def test_a_point_that_fails_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(scenario: Scenario, path: Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        if scenario.workers == 2:
            RunDirectory.create(path, "name: bowl").finish({}, "failed", None)
            raise asgd_lab.RunFailed("worker 1: died")
        return execute(scenario, path, *arguments, **options)

    monkeypatch.setattr("asgd_lab.run_points.execute", fail)
    swept = asgd_lab.sweep(BOWL, {"sweep.workers": [1, 2, 3]}, out=tmp_path / "out", jobs=1)
    failed = "workers=2"
    assert swept.failures == {failed: f"worker 1: died; what was recorded is in {tmp_path / 'out' / failed}"}
    assert list(swept.frame["workers"]) == [1, 3]
    assert "worker 1: died" in swept._repr_html_()
    with pytest.raises(asgd_lab.RunFailed) as raised:
        swept[failed]
    assert raised.value.run_dir is not None
    assert asgd_lab.Run.open(raised.value.run_dir).status == "failed"


@pytest.mark.xdist_group("process")
def test_a_comparison_has_a_row_per_point_and_its_figure(tmp_path: Path) -> None:
    said: list[str] = []
    scenario = {
        "name": "tiny",
        "task": {"name": "timing", "size_bytes": 1000, "step_s": 0.002},
        "algorithm": {"name": "asgd", "n_sync": 5},
        "workers": 1,
        "budget": {"seconds": 0.3},
        "backend": {"name": "process", "device": "emulated"},
    }
    compared = asgd_lab.compare(scenario, out=tmp_path / "out", repeats=1, say=said.append)
    assert len(compared.frame) == 1
    assert len(said) == 2
    assert 0.5 < compared.frame["predicted"][0] < 1.1
    assert asgd_lab.Comparison.open(tmp_path / "out").frame.equals(compared.frame)
    assert len(compared.plot.speedup().axes) >= 3


def test_a_replay_names_the_first_difference(tmp_path: Path) -> None:
    run = asgd_lab.run(BOWL, out=tmp_path / "run")
    path = run.path / "scenario.yaml"
    path.write_text(path.read_text().replace("seed: 3", "seed: 4"))
    again = asgd_lab.replay(run)
    assert not again.same_bits
    assert "scenario.yaml: states other values than the scenario that was run" in again.differences[0]
    assert asgd_lab.replay(str(run.path)).differences == again.differences


# ---------------------------------------------------------------- threads, event loops, interrupts


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_in_threads_have_the_bits_of_the_main_thread(tmp_path: Path, backend: str) -> None:
    found: dict[int, asgd_lab.Run] = {}

    def work(number: int) -> None:
        found[number] = asgd_lab.run(on(backend), {"workers": 1}, out=tmp_path / str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    here = asgd_lab.run(on(backend), {"workers": 1}, out=tmp_path / "here")
    assert {run.summary["params_sha256"] for run in found.values()} == {here.summary["params_sha256"]}


@pytest.mark.xdist_group("process")
def test_it_works_inside_a_running_event_loop(tmp_path: Path) -> None:
    async def notebook() -> list[int]:
        run = asgd_lab.run(on("process"), out=tmp_path / "run")
        swept = asgd_lab.sweep(BOWL, {"sweep.workers": [1, 2]}, out=tmp_path / "sweep", jobs=2)
        return [run.summary["workers"], len(swept)]

    assert asyncio.run(notebook()) == [2, 2]


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("backend", ["sim", "process"])
def test_an_interrupted_run_is_recorded_and_its_directory_is_told(tmp_path: Path, backend: str) -> None:
    def stop(progress: Progress) -> None:
        if progress.minibatches > 0:
            raise KeyboardInterrupt

    long = {"name": "timing", "size_bytes": 4000, "step_s": 0.001}
    scenario = {**BOWL, "task": long, "hardware": {}, "budget": {"seconds": 600.0}}
    scenario["backend"] = {"name": backend, "device": "emulated"} if backend == "process" else backend
    with pytest.raises(asgd_lab.Interrupted) as raised:
        asgd_lab.run(scenario, out=tmp_path / "run", watch=stop)
    assert isinstance(raised.value, KeyboardInterrupt)
    assert str(raised.value) == f"what was recorded is in {tmp_path / 'run'}"
    assert raised.value.run_dir == tmp_path / "run"
    run = asgd_lab.Run.open(raised.value.run_dir)
    assert run.status == "interrupted"
    assert run.summary["minibatches"] > 0


# ---------------------------------------------------------------- words for a reader


def test_a_run_a_sweep_and_a_replay_show_themselves(tmp_path: Path) -> None:
    run = asgd_lab.run({**BOWL, "name": "a<b>&c"}, out=tmp_path / "a<b>&c")
    assert repr(run) == f"<Run {tmp_path / 'a<b>&c'}: done>"
    shown = run._repr_html_()
    assert "a&lt;b&gt;&amp;c" in shown
    assert "<b>" not in shown
    assert "<th>makespan</th><td>0.200 s</td>" in shown
    assert "the same bits" in run.replay()._repr_html_()
    swept = asgd_lab.sweep(BOWL, {"sweep.workers": [1, 2]}, out=tmp_path / "sweep", jobs=1)
    assert repr(swept) == f"<Sweep {tmp_path / 'sweep'}: 2 points>"
    assert "<td>workers=2</td>" in swept._repr_html_()


def test_the_figures_of_a_run_show_inline(tmp_path: Path) -> None:
    run = asgd_lab.run(DIGITS, out=tmp_path / "run")
    figures = [run.plot.timeline(), run.plot.where_time_goes(), run.plot.curves(), run.plot.staleness()]
    for figure in figures:
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ({}, "test loss"),
        ({"split": "train"}, "train loss"),
        ({"metric": "loss"}, "test loss"),
        ({"metric": "loss", "split": "train"}, "train loss"),
    ],
    ids=str,
)
def test_curves_are_of_an_evaluated_metric_where_none_is_stated(
    tmp_path: Path, stated: dict[str, str], shown: str
) -> None:
    table = {"split": ["train", "test", "test"], "metric": ["loss", "mae", "loss"], "value": [1.0, 2.0, 3.0]}
    assert " ".join(common_metric([pd.DataFrame(table)], **stated)) == shown
    run = asgd_lab.run(BOWL, out=tmp_path / "run")
    axis = run.plot.curves().axes[0].get_ylabel()
    assert axis in {f"{row.split} {row.metric}" for row in run.evals.itertuples()}
    with pytest.raises(asgd_lab.ScenarioError, match="has no evaluations of test nothing; it has"):
        run.plot.curves("nothing")
