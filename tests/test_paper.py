"""The paper's verdicts: rules that can fail, on tables made so that the answer is known; and tables of real runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from asgd_lab import sweep_figure, sweep_tables
from asgd_lab.backends.run import execute
from asgd_lab.record.replications import Estimate
from asgd_lab.scenario import Document
from asgd_lab.sweep_tables import Swept
from tests.whole import sample

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "analysis" / "paper"
SCENARIOS = sorted((ROOT / "scenarios" / "paper").glob("*.yaml"))
sys.path.insert(0, str(PAPER))
import collect  # noqa: E402
import verdicts  # noqa: E402
from cells import (  # noqa: E402
    COSTS,
    FITS,
    FITTED,
    NOT,
    ON_SERVER,
    ORDERING,
    RATE,
    REPLICAS,
    REPRODUCED,
    Tables,
    magnitude,
)
from experiment_3 import ringing_ratio  # noqa: E402


def cells(error: Any, seeds: int = 3, **columns: Any) -> pd.DataFrame:
    """Experiment 3 where `error(workers, n_sync, lr)` gives (replicas, server); a little noise tells seeds apart."""
    rows = []
    for workers in (1, 2, 4, 8):
        for n in (100, 300, 600, 900):
            for lr in (RATE, 2 * RATE):
                for seed in range(seeds):
                    own, server = error(workers, n, lr)
                    noise = 1e-4 * np.sin(seed + workers * n)
                    rows.append({
                        "experiment": "figures-3-and-4", "workers": workers, "n_sync": n, "lr": lr, "costs": COSTS,
                        "seed": seed, "own": own + noise, "server train": server + noise,
                        "minibatches": workers * (500 if n == 100 else 700), "drift": 0.01 * n / 100,
                        "variance_own": (n / 1e4) ** 2 + noise / 1e3, "variance_server": 1e-4 + noise / 1e3, **columns,
                    })  # fmt: skip
    return pd.DataFrame(rows)


def tables(runs: pd.DataFrame, curves: pd.DataFrame | None = None) -> Tables:
    none = pd.DataFrame(columns=["experiment", "whose", "workers", "n_sync", "lr", "costs", "seed", "run", "hours"])
    return Tables(runs, none if curves is None else curves)


@pytest.mark.parametrize(
    ("own", "server", "verdict"),
    [
        (0.12, 0.12, REPRODUCED),
        (0.12, 0.03, ORDERING),
        (0.03, -0.01, f"{REPLICAS} ({ORDERING})"),
        (0.03, 0.03, ORDERING),
        (0.30, 0.30, ORDERING),
        (0.0, 0.0, NOT),
        (-0.12, 0.12, ON_SERVER),
        (-0.12, 0.03, f"{ON_SERVER} ({ORDERING})"),
        (0.03, 0.12, ORDERING),
        (0.12, -0.01, REPLICAS),
    ],
)
def test_a_gap_of_a_stated_size_has_each_verdict(own: float, server: float, verdict: str) -> None:
    found = tables(cells(lambda workers, n, lr: (0.7 - own * (workers == 8), 0.7 - server * (workers == 8))))
    assert verdicts.a7(found).verdict == verdict


def test_a_single_seed_needs_a_point() -> None:
    for gap, verdict in ((0.005, NOT), (0.05, ORDERING)):
        found = tables(cells(lambda workers, n, lr, gap=gap: (0.7 - gap * (workers == 8),) * 2, seeds=1))
        assert verdicts.a7(found).verdict == verdict


def test_more_clients_must_help_at_every_step() -> None:
    assert verdicts.a8(tables(cells(lambda workers, n, lr: (0.7 - 0.02 * workers,) * 2))).verdict == REPRODUCED
    worse_once = tables(cells(lambda workers, n, lr: (0.7 - 0.02 * workers + 0.1 * (workers == 4 and n == 300),) * 2))
    assert verdicts.a8(worse_once).verdict == NOT


def test_what_the_rule_says_at_other_rates_stands_beside_it() -> None:
    """Eight clients gain only at twice the optimum, one only at the optimum: so at the best rates they gain too."""

    def error(workers: int, n: int, lr: float) -> tuple[float, float]:
        best = RATE if workers == 1 else 2 * RATE
        return (0.7 - 0.1 * (workers == 8 and lr > RATE) + 0.2 * (lr != best),) * 2

    runs = cells(error)
    found = verdicts.a7(Tables.of(runs, tables(runs).curves))
    assert found.verdict == NOT
    assert f"at rate {2 * RATE:g}: {ORDERING}" in found.why
    assert f"at the best rate of each cell: {REPRODUCED}" in found.why
    assert "best rate" not in verdicts.a7(tables(runs)).why


def test_fewer_minibatches_and_a_lower_error() -> None:
    falling = cells(lambda workers, n, lr: (0.5 + n / 20000,) * 2)
    assert verdicts.a10(tables(falling)).verdict == REPRODUCED
    assert verdicts.a11(tables(falling)).verdict == REPRODUCED
    assert verdicts.a10(tables(falling.assign(minibatches=700))).verdict == NOT, "not fewer"
    flat = tables(cells(lambda workers, n, lr: (0.5, 0.5)))
    assert verdicts.a10(flat).verdict == verdicts.a11(flat).verdict == NOT


def test_jags_on_replicas_alone() -> None:
    runs = cells(lambda workers, n, lr: (0.5, 0.5))
    own = runs["variance_own"]
    assert verdicts.a9(tables(runs)).verdict == REPLICAS
    assert verdicts.a9(tables(runs.assign(variance_server=own))).verdict == REPRODUCED
    assert verdicts.a9(tables(runs.assign(variance_own=1e-4))).verdict == NOT
    once = own.where((runs["n_sync"] < 900) | (runs["seed"] == 0), 1e-4)
    assert verdicts.a9(tables(runs.assign(variance_own=once))).verdict == f"{REPLICAS} ({ORDERING})", "in one seed"
    swapped = own.where(runs["n_sync"] > 300, (0.04 - own**0.5) ** 2)
    assert verdicts.a9(tables(runs.assign(variance_own=swapped))).verdict == REPLICAS, "a correlation of 0.8 is enough"


@pytest.mark.parametrize(("in_step", "says"), [(True, ", and not from stale updates"), (False, "")])
def test_jags_in_lock_step_are_not_from_stale_updates(in_step: bool, says: str) -> None:
    runs = cells(lambda workers, n, lr: (0.5, 0.5))
    without = runs[runs["n_sync"].isin([100, 900])].assign(experiment="without-staleness")
    if not in_step:
        without["variance_own"] = 1e-4
    found = verdicts.a9(tables(pd.concat([runs, without])))
    assert found.verdict == REPLICAS + says
    assert found.why.startswith(f"stale updates {'are not' if in_step else 'may be'} the cause")


def curve(experiment: str, whose: str, hours: Any, error: Any, run: int = 0, **columns: Any) -> pd.DataFrame:
    hours = np.asarray(hours, float)
    return pd.DataFrame({"experiment": experiment, "whose": whose, "hours": hours, "error": error, "run": run,
                         "seed": 0, "steps": hours * 3600 / 1.295, **columns})  # fmt: skip


def cold(late: dict[str, bool], early: dict[str, bool], ordered: bool = True, seeds_late: int = 3) -> Tables:
    """Cold starts: whether the many are behind early, and fall fastest late (in so many seeds of 3), at each cost."""
    hours, found, runs = np.linspace(0.125, 23.875, 96), [], []
    for costs in late:
        for workers in (2, 4, 8, 16, 32):
            behind = (0.04 * np.log2(workers) if ordered else 0.3 * (workers > 8) - 0.001 * workers) * early[costs]
            for seed in range(3):
                falls = (0.01 + 1e-4 * seed) * np.log2(workers) * (1 if late[costs] and seed < seeds_late else -1)
                error = 0.8 + behind - 0.001 * hours - falls * np.maximum(0, hours - 12) / 12
                here = {"experiment": "figure-2", "workers": workers, "costs": costs, "seed": seed}
                runs.append({**here, "server_busy": 0.5})
                for whose in ("replicas own", "server train"):
                    found.append(curve(whose=whose, hours=hours, error=error, run=len(runs), **here))
    return Tables(pd.DataFrame(runs), pd.concat(found))


def test_a_cold_start_is_fitted_where_only_the_dearest_software_makes_it_slow() -> None:
    cheap, _, dear = FITS
    always = {cheap: True, dear: True}
    assert verdicts.a4(cold(always, always)).verdict == REPRODUCED
    assert verdicts.a4(cold(dict.fromkeys(always, False), always)).verdict == ORDERING
    assert verdicts.a4(cold(always, always, seeds_late=1)).verdict == ORDERING, "one seed of three is not enough"
    assert verdicts.a4(cold({cheap: True, dear: False}, always)).verdict == ORDERING
    assert verdicts.a4(cold(always, {cheap: True, dear: False})).verdict == FITTED, "at the cheap end alone"
    assert verdicts.a4(cold(always, {cheap: False, dear: True})).verdict == FITTED
    assert verdicts.a4(cold(always, dict.fromkeys(always, False))).verdict == NOT
    assert verdicts.a4(cold(always, always, ordered=False)).verdict == NOT, "2, 4 and 8 are level"
    assert verdicts.a4(cold(dict.fromkeys(always, False), always, ordered=False)).verdict == NOT


def test_by_minibatches_of_a_client_a_queue_is_no_excuse() -> None:
    """32 clients make half of what 2 make: after 12 hours they are beside what 2 were after 6."""
    cheap, _, _ = FITS
    found = cold({cheap: True}, {cheap: True})
    found.curves.loc[found.curves["workers"] == 32, "steps"] /= 2
    told = verdicts.a4(found).why.split("by then: ")[1]
    assert told.startswith("71 passes (0 s), server: +15.4 ± 0.0 points"), told  # 4 x 4 - 0.1 x 6


def first(low_at: float, days: float, rise: float, seeds: int = 3, worse: float = 0.0) -> Tables:
    """Experiment 1: eight clients whose test error falls to 40% at `low_at` days and then rises; `worse` for seed 0."""
    hours = np.linspace(0, days * 24, 97)[1:]
    falls = 0.4 + 0.3 * np.maximum(0, 1 - hours / (low_at * 24))
    error = falls + rise * np.maximum(0, hours - low_at * 24) / (days * 24 - low_at * 24)
    single = np.linspace(0, 10.7 * 24, 97)[1:]
    curves, cell = [], {"workers": 8, "n_sync": 100, "lr": RATE, "costs": COSTS}
    for seed in range(seeds):
        here = {"seed": seed, "run": seed}
        alone = 0.4 + 0.3 * np.maximum(0, 1 - single / 240)
        for split in ("test", "train"):
            curves.append(curve("figure-1-one-client", f"server {split}", single, alone, **here))
            curves.append(curve("figures-3-and-4", f"server {split}", hours, error, **here, **cell))
        for whose in ("server", "replicas'"):
            found = error + worse * (seed == 0) + 1e-4 * seed
            curves.append(curve("figure-1", f"{whose} test", hours, found, **here))
            curves.append(curve("figure-1", f"{whose} train", hours, falls - 0.01 - 0.001 * hours / 24, **here))
    return Tables(pd.DataFrame(), pd.concat(curves))


def test_time_to_the_single_clients_best_and_over_fitting() -> None:
    good = first(low_at=3.3, days=5.0, rise=0.05)
    assert verdicts.a2(good).verdict == REPRODUCED
    assert verdicts.a3(good).verdict == REPRODUCED
    assert verdicts.a2(first(low_at=3.3, days=5.0, rise=0.05, worse=0.1)).verdict == NOT, "not in every seed"
    slow = first(low_at=7.0, days=10.0, rise=0.05)
    assert verdicts.a2(slow).verdict == ORDERING
    assert verdicts.a3(slow).verdict == ORDERING, "over-fits, but later"
    assert verdicts.a3(first(low_at=3.3, days=5.0, rise=0.0)).verdict == NOT
    assert verdicts.a15(good).verdict == REPRODUCED
    far = good.curves.assign(error=good.curves["error"].where(good.curves["whose"] != "server train", 0.2))
    assert verdicts.a15(Tables(good.runs, far)).verdict == REPLICAS
    assert verdicts.a2(first(low_at=3.3, days=5.0, rise=0.05, seeds=1)).verdict == REPRODUCED


def test_a_flat_curve_of_noise_does_not_over_fit() -> None:
    """A lowest value lies below the last one by chance; where the other seeds are lowest it does not."""
    noise, flat = np.random.default_rng(0), first(low_at=0.5, days=5.0, rise=0.0)
    over_fitted = 0
    for _ in range(40):
        error = flat.curves["error"] + noise.normal(0, 0.01, len(flat.curves))
        over_fitted += verdicts.a3(Tables(flat.runs, flat.curves.assign(error=error))).verdict != NOT
    assert over_fitted <= 4  # training error falls; 40 times two measures at 2.5% are 2, and 5 or more have 5%


def test_a_verdict_that_other_costs_do_not_bear_out_is_fitted() -> None:
    runs = cells(lambda workers, n, lr: (0.5 + n / 20000 - 0.02 * workers,) * 2)
    corners = runs[runs["workers"].isin([1, 8]) & runs["n_sync"].isin([100, 900]) & (runs["lr"] == RATE)]

    def at(costs: str, **columns: Any) -> pd.DataFrame:
        return corners.assign(experiment="other-costs", costs=costs, **columns)

    turned = corners["own"] - corners["n_sync"] / 10000
    cheap, _, dear = FITS
    both = pd.concat([runs, at(cheap), at(dear)])
    for rule in (verdicts.a7, verdicts.a8, verdicts.a10, verdicts.a11):
        assert rule(tables(runs)).verdict == rule(tables(both)).verdict != NOT
    one = tables(pd.concat([runs, at(cheap), at(dear, **{"own": turned, "server train": turned})]))
    assert verdicts.a10(one).verdict == f"{FITTED} (at 75 passes: {REPRODUCED})"
    assert "not so at 90 passes (161 s)" in verdicts.a11(one).why
    as_many = tables(pd.concat([runs, at(cheap, minibatches=700), at(dear)]))
    assert "not so at 71 passes (0 s)" in verdicts.a10(as_many).why, "no fewer minibatches there"
    assert verdicts.a11(as_many).verdict == verdicts.a11(tables(both)).verdict
    assert verdicts.a8(one).verdict == REPRODUCED, "more clients still help"


def test_an_interval_has_the_papers_number_or_lies_near_it() -> None:
    for mean, half, verdict in ((10, 4, REPRODUCED), (7, 0.5, REPRODUCED), (7, 2, ORDERING), (16, 3, ORDERING),
                                (2, 3, NOT), (30, 1, ORDERING)):  # fmt: skip
        assert magnitude(Estimate(mean / 100, half / 100, 3), 0.12) == verdict, (mean, half)


def test_ringing_is_told_from_noise_and_from_other_periods() -> None:
    noise, rounds = np.random.default_rng(1), np.arange(0, 75, 1 / 8)

    def seen(amplitude: float, period: float) -> tuple[float, float]:
        """In how many of 100 times three runs the interval lies above 1, and below it."""
        wave = 0.7 - 0.002 * rounds + amplitude * np.sin(2 * np.pi * rounds / period)
        found = [
            ringing_ratio(pd.DataFrame([
                collect.ringing(rounds, wave + noise.normal(0, 0.01, len(rounds))) for _ in range(3)
            ])) for _ in range(100)
        ]  # fmt: skip
        assert all(low < ratio < high for ratio, low, high in found)
        return sum(low > 1 for _, low, _ in found), sum(high < 1 for _, _, high in found)

    assert all(times <= 9 for times in seen(0, 1)), "2.5% each are expected, and 10 or more have 0.02%"
    assert seen(0.01, 4.5) == (100, 0)
    assert seen(0.01, 3.0) == (0, 100)


@pytest.mark.parametrize("n_sync", [10, 90])
def test_a_clients_jags_are_those_of_its_drift_and_not_of_chance(n_sync: int) -> None:
    """A sawtooth of 9 points a round, over a trend, seen in minibatches of 16: smoothed, without chance, and alone."""
    noise, steps, window, batch_size = np.random.default_rng(n_sync), np.arange(2680), 40, 16
    for height in (0.0, 0.09):
        clean = 0.72 - 0.02 * steps / len(steps) + height * (steps % n_sync / n_sync - 0.5)
        smooth = np.convolve(height * (steps % n_sync / n_sync - 0.5), np.ones(window) / window, "valid")
        found = [
            collect.variance(noise.binomial(batch_size, clean) / batch_size, window, batch_size) for _ in range(200)
        ]
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - np.var(smooth)) < 4 * error
        assert error < 0.0025**2, "far less than a jag of half a point"


@pytest.mark.parametrize(
    ("at_one", "at_hundred", "verdict"), [(0.84, 0.998, REPRODUCED), (0.95, 0.998, NOT), (0.84, 0.97, NOT)]
)
def test_one_minibatch_a_synchronisation_must_cost_and_a_hundred_must_not(
    at_one: float, at_hundred: float, verdict: str
) -> None:
    runs = [
        {"experiment": "one-minibatch", "workers": workers, "n_sync": n, "computing": share, "seed": 0}
        for workers in (1, 8, 15, 32) for n, share in ((1, at_one), (100, at_hundred))
    ]  # fmt: skip
    assert verdicts.a14(tables(pd.DataFrame(runs))).verdict == verdict


@pytest.mark.parametrize("path", sample(SCENARIOS, 4), ids=lambda path: path.stem)
def test_a_scenario_of_the_paper_runs_and_is_collected(path: Path, tmp_path: Path) -> None:
    """On digits, for some rounds; the first and the last of its points."""
    document = Document.read(path)
    timing = document.points()[0].scenario.task.name == "timing"
    largest = max(point.scenario.workers for point in document.points())
    budget = 1200 if timing else max(21_600, 2_700 * largest)  # some rounds of each worker
    small: dict[str, Any] = {"budget": {"minibatches": budget}}
    if not timing:
        small |= {"task.dataset": "digits", "task.train_samples": None, "task.batch_size": 2}
        if document.points()[0].scenario.warm_start is not None:
            small["warm_start"] = {"minibatches": 100}
    points = document.points(small)
    assert all(point.scenario.name == path.stem and point.scenario.description for point in points)
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0].endswith("?")
    assert all(f"\n# {part}" in text for part in ("Look at", "Expected"))
    assert f"asgd-lab run paper/{path.stem} " in text
    chosen = list({points[0].name: points[0], points[-1].name: points[-1]}.values())
    paths = {point.name: tmp_path / "runs" / str(number) for number, point in enumerate(chosen)}
    summaries = {point.name: execute(point.scenario, paths[point.name]) for point in chosen}
    drawn = sweep_figure.draw(
        points[0].scenario, sweep_tables.groups(map(Swept.of, chosen), summaries, paths), tmp_path / "figure"
    )
    assert [path.suffix for path in drawn] == [".png", ".pdf"]
    assert all(path.stem == points[0].scenario.figure and path.stat().st_size > 5_000 for path in drawn)
    if timing:
        return
    collect.main(tmp_path / "runs", tmp_path / "tables")
    runs, curves = (pd.read_parquet(tmp_path / "tables" / f"{name}.parquet") for name in ("runs", "curves"))
    assert runs["minibatches"].between(budget, budget * 1.1).all()
    assert runs[["own", "server train", "server test", "drift"]].notna().all(axis=None)
    assert set(curves["whose"]) >= {"replicas own", "server train", "server test"}
    assert curves["error"].between(0, 1).all()
    assert curves["steps"].max() <= budget


def test_the_kept_tables_make_the_verdicts_and_the_figures(tmp_path: Path) -> None:
    folder = PAPER / "tables"
    done = subprocess.run(
        [sys.executable, str(PAPER / "paper.py"), str(folder), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.png")} == {
        *(f"paper-figure-{number}.png" for number in (1, 2, 3, 4)), "paper-jags.png",
    }  # fmt: skip
    assert (tmp_path / "verdicts.md").read_text(encoding="utf-8") == kept_verdicts()


def kept_verdicts() -> str:
    return (ROOT / "analysis" / "figures" / "verdicts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_what_a_scenario_expects_stands_in_the_verdicts(path: Path) -> None:
    """Each interval, and each pair of errors, replicas | server, but for experiment 3's, which have a test below."""
    expected = " ".join(re.findall(r"^# ?(.*)$", path.read_text(encoding="utf-8").split("# Expected. ")[1], re.M))
    found = kept_verdicts()
    for interval in re.findall(r"\d+\.\d ± \d+\.\d", expected):
        assert interval in found, interval
    for own, server in re.findall(r"(\d+\.\d) \| (\d+\.\d)", expected) if path.stem != "figures-3-and-4" else ():
        row = rf"^\| {path.stem} .*\| {own} ± \d+\.\d% \| {server} ± \d+\.\d% \|$"
        assert re.search(row, found, re.M), (own, server)


def test_the_table_of_experiment_3_in_its_scenario_is_that_of_the_kept_runs() -> None:
    text = (ROOT / "scenarios" / "paper" / "figures-3-and-4.yaml").read_text(encoding="utf-8")
    runs = pd.read_parquet(PAPER / "tables" / "runs.parquet")
    runs = runs[(runs["experiment"] == "figures-3-and-4") & np.isclose(runs["lr"], RATE)]
    means = (100 * runs.groupby(["workers", "n_sync"])[["own", "server train"]].mean()).round(1)
    rows = re.findall(r"^#   (\d) clients?((?: +[\d.]+ \| [\d.]+){4})$", text, re.M)
    assert [workers for workers, _ in rows] == ["1", "2", "4", "8"]
    for workers, row in rows:
        told = np.array(re.findall(r"[\d.]+", row), float).reshape(4, 2)
        np.testing.assert_allclose(told, means.loc[int(workers)], atol=1e-6)
