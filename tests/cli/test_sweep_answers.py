"""The table of a sweep answers: speed-up and efficiency of workers, seconds and minibatches to a target."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from asgd_lab.record.run import read_summary
from tests.cli.harness import QUADRATIC, asgd_lab

SATURATED = QUADRATIC.replace(
    "{compute: {step_s: 0.01}}",
    "{compute: {distribution: lognormal, cv: 0.5, step_s: 0.01}, server: {push_s: 0.008}}",
)
TARGET = """\
name: race
task: {name: quadratic, curvature: [1.0], optimizer: {name: SGD, lr: 0.05}}
algorithm: {name: asgd, n_sync: 2, rule: [add]}
workers: 2
budget: {minibatches: 300, target: {split: test, metric: loss, below: 0.01}}
evaluate: {every_minibatches: 4}
backend: sim
hardware: {compute: {distribution: lognormal, cv: 0.5, step_s: 0.01}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def swept(text: str, sweep: str, *more: str) -> tuple[pd.DataFrame, str]:
    """The table and the output of a sweep."""
    Path("swept.yaml").write_text(text + f"sweep: {sweep}\n")
    said = asgd_lab("run", "swept.yaml", "--out", "out", "--jobs", "1", *more)
    assert (said.status, said.err) == (0, "")
    return pd.read_csv("out/sweep.csv"), said.out


def test_speed_up_is_over_the_fewest_workers_with_the_same_seed_and_has_an_interval() -> None:
    table, said = swept(SATURATED, "{algorithm.n_sync: [1, 4], workers: [2, 4]}", "--seeds", "3")
    cells = table.set_index(["algorithm.n_sync", "workers", "metric"])
    for n_sync in (1, 4):
        rates = {
            count: [
                read_summary(f"out/algorithm.n_sync={n_sync},workers={count},seed={seed}")["minibatches_per_s"]
                for seed in (3, 4, 5)
            ]
            for count in (2, 4)
        }
        ratios = [four / two for four, two in zip(rates[4], rates[2], strict=True)]
        interval = stats.ttest_1samp(ratios, 0.0).confidence_interval(0.95)
        found = cells.loc[(n_sync, 4, "speedup")]
        assert found["mean"] == pytest.approx(sum(ratios) / 3)
        assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
        assert cells.loc[(n_sync, 4, "efficiency"), "mean"] == pytest.approx(sum(ratios) / 6)
        assert (cells.loc[(n_sync, 2, "speedup"), ["mean", "low", "high"]] == 1).all()
    assert "speed-up: minibatches/s over those of 2 workers" in said


def test_a_sweep_of_other_keys_has_no_speed_up() -> None:
    table, said = swept(QUADRATIC, "{algorithm.n_sync: [1, 4]}")
    assert not {"speedup", "efficiency", "target_reached"} & {*table["metric"]}
    assert "speed-up" not in said


def test_a_target_is_reached_after_seconds_and_minibatches_or_not_at_all() -> None:
    table, _ = swept(TARGET, "{task.optimizer.lr: [0.05, 1.0e-6]}", "--seeds", "2")
    cells = table.set_index(["task.optimizer.lr", "metric"])["mean"]
    runs = [read_summary(f"out/task.optimizer.lr=0.05,seed={seed}") for seed in (0, 1)]
    assert cells[0.05, "target_reached"] == 1
    assert cells[0.05, "seconds_to_target"] == pytest.approx(sum(run["makespan_s"] for run in runs) / 2)
    assert cells[0.05, "minibatches_to_target"] == sum(run["minibatches"] for run in runs) / 2 < 300
    assert cells[1e-6, "target_reached"] == 0
    assert not {"seconds_to_target", "minibatches_to_target"} & {*cells[1e-6].index}


@pytest.mark.parametrize("width", ["60", "80", "100"])
def test_no_value_of_the_table_is_cut_at_any_width(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr("asgd_lab.app.display.PLAIN_WIDTH", int(width))
    table, said = swept(TARGET, "{workers: [1, 2], task.optimizer.lr: [0.05, 0.1]}", "--seeds", "2")
    shown = said[said.index("speed-up: minibatches/s") :]
    assert "…" not in shown
    assert "..." not in shown
    assert max(len(line) for line in shown.splitlines() if set(line) & {*"┃│"}) <= int(width)
    headings = {"seconds_to_target": "s to target", "speedup": "speed-up", "test_loss": "test loss"}
    words = " ".join(re.sub(r"[┃┏┓┡┩╇┳━]", " ", shown).split())
    assert all(heading.split()[0] in words for heading in headings.values()), "shown, or told to be left out"
    first = table[(table["metric"] == "seconds_to_target")].iloc[0]
    assert f"{first['mean']:,.3f} ±" in shown, "the most important column is there at any width"


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("text", "sweep", "figure"),
    [
        (TARGET, "{workers: [1, 2]}", "to_target"),
        (QUADRATIC, "{workers: [1, 2]}", "speedup"),
        (QUADRATIC + "evaluate: {every_minibatches: 20}\n", "{task.noise: [0.1, 0.2]}", "curves"),
        (QUADRATIC, "{task.noise: [0.1, 0.2]}", "final"),
        (QUADRATIC + "figure: staleness\n", "{workers: [1, 2]}", "staleness"),
        (QUADRATIC + "figure: where_time_goes\n", "{algorithm: [{name: asgd, n_sync: 2}, {name: sync_sgd, n_sync: 2}]}",
         "where_time_goes"),
        (QUADRATIC + "figure: throughput\n", "{workers: [1, 2], hardware.compute.step_s: [0.01, 0.02, 0.03]}",
         "throughput"),
    ],
)  # fmt: skip
def test_a_sweep_draws_the_figure_that_it_names_or_that_its_keys_suggest(text: str, sweep: str, figure: str) -> None:
    _, said = swept(text, sweep, "--seeds", "2")
    assert f"wrote out/{figure}.png\nwrote out/{figure}.pdf\n" in said
    assert sorted(path.name for path in Path("out").glob("*.p??")) == [f"{figure}.pdf", f"{figure}.png"]


def test_a_figure_that_cannot_be_drawn_is_told_in_a_line_and_none_is_not_drawn() -> None:
    _, said = swept(QUADRATIC + "figure: speedup\n", "{task.noise: [0.1, 0.2]}")
    assert "\nfigure: speedup is not drawn: it compares numbers of workers, and there is one\n" in said
    assert not list(Path("out").glob("*.png"))
    assert asgd_lab("run", "swept.yaml", "--out", "quiet", "--set", "figure=none", "--jobs", "1").status == 0
    assert not list(Path("quiet").rglob("*.png"))
    said_again = asgd_lab("run", "swept.yaml", "--out", "out", "--resume", "--set", "figure=final", "--jobs", "1")
    assert said_again.status == 0, "another figure is not another run"
    assert Path("out/final.png").exists()


def test_a_single_run_draws_a_figure_only_if_it_names_one_of_a_single_run() -> None:
    Path("one.yaml").write_text(QUADRATIC + "evaluate: {every_minibatches: 20}\n")
    for figure, files in (("null", []), ("speedup", []), ("curves", ["curves.pdf", "curves.png"])):
        assert asgd_lab("run", "one.yaml", "--out", figure, "--set", f"figure={figure}").status == 0
        assert sorted(path.name for path in Path(figure).glob("*.p?[fg]")) == files
