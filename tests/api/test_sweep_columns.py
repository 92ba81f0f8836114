"""Columns of a sweep that follow from others: speed-up, efficiency, seconds and minibatches to a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

import asgd_lab
from asgd_lab import Sweep, sweep_figure, sweep_tables
from asgd_lab.app.sweep_display import results
from asgd_lab.request import Request
from asgd_lab.summary_words import doubts
from asgd_lab.sweep_tables import Group, Swept
from tests.api.test_validation import TIMING
from tests.figures.drawn import overflows


def summary(rate: float, seed: int, **more: Any) -> dict[str, Any]:
    busy = {"workers": 1.0, "server": 0.0}
    return {"minibatches_per_s": rate, "makespan_s": 40 / rate, "utilisation": busy, "seed": seed,
            "staleness": {"mean": 0.0, "max": 0}, "updates": 1, "minibatches": 40, "final": {}, **more}  # fmt: skip


def grouped(sweep: dict[str, Any], failed: Sequence[str] = (), seeds: int | None = None) -> dict[str, Group]:
    """The groups of a sweep whose runs make 100 minibatches a second a worker, and 10 more with each seed."""
    points = list(Request.of(TIMING, {"sweep": sweep}, seeds).points)
    done = {
        point.name: summary(100.0 * point.scenario.workers + 10 * point.scenario.seed, point.scenario.seed)
        for point in points
        if point.name not in failed
    }
    return {group.name: group for group in sweep_tables.groups(map(Swept.of, points), done)}


def speedups(groups: dict[str, Group]) -> dict[str, float | None]:
    return {name: each.means()["speedup"].mean if "speedup" in each.means() else None for name, each in groups.items()}


def test_the_base_is_the_fewest_workers_of_the_sweep_in_whatever_order() -> None:
    for workers in ([1, 2, 4], [4, 2, 1], [2, 1, 4]):
        assert speedups(grouped({"workers": workers})) == {f"workers={each}": float(each) for each in workers}
    found = grouped({"workers": [6, 3]})
    assert speedups(found) == {"workers=6": 2.0, "workers=3": 1.0}
    assert found["workers=6"].means()["efficiency"].mean == 1.0


def test_a_failed_base_of_one_series_leaves_that_series_without_speed_up_and_the_other_as_it_is() -> None:
    sweep = {"algorithm.n_sync": [1, 2], "workers": [1, 2]}
    found = speedups(grouped(sweep, failed=["algorithm.n_sync=2,workers=1"]))
    assert found == {
        "algorithm.n_sync=1,workers=1": 1.0, "algorithm.n_sync=1,workers=2": 2.0, "algorithm.n_sync=2,workers=2": None,
    }  # fmt: skip


def test_no_other_run_takes_the_place_of_a_base_that_has_failed_everywhere() -> None:
    found = grouped({"workers": [1, 2, 4]}, failed=["workers=1"])
    assert speedups(found) == {"workers=2": None, "workers=4": None}
    (table, *_) = results(list(found.values()))
    assert table.title is None
    assert "speed-up" not in table.headings


def test_a_base_that_has_failed_for_one_seed_leaves_the_others() -> None:
    found = grouped({"workers": [1, 2]}, failed=["workers=1,seed=1"], seeds=3)
    ratios = [200 / 100, 220 / 120]
    each = found["workers=2"].means()["speedup"]
    assert (each.mean, each.n) == (pytest.approx(sum(ratios) / 2), 2)
    interval = stats.ttest_1samp(ratios, 0.0).confidence_interval(0.95)
    assert (each.low, each.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found["workers=2"].means()["minibatches_per_s"].n == 3


def test_one_run_has_a_speed_up_without_an_interval() -> None:
    each = grouped({"workers": [1, 2]})["workers=2"].means()["speedup"]
    assert (each.mean, each.n, math.isnan(each.low)) == (2.0, 1, True)


def test_a_sweep_without_workers_has_none_even_where_only_one_number_of_workers_is_swept() -> None:
    assert speedups(grouped({"algorithm.n_sync": [1, 2]})) == {"algorithm.n_sync=1": None, "algorithm.n_sync=2": None}
    assert speedups(grouped({"workers": [4]})) == {"workers=4": 1.0}


def of_targets(*runs: dict[str, Any]) -> dict[str, Any]:
    """The means of one group of runs, a seed each."""
    points = [Swept(f"seed={seed}", {"seed": seed}, seed, "x", has_target=True) for seed in range(len(runs))]
    done = {f"seed={seed}": summary(100.0, seed, **run) for seed, run in enumerate(runs)}
    return sweep_tables.groups(points, done)[0].means()


def test_seconds_and_minibatches_to_a_target_are_of_groups_that_reached_it_with_every_seed() -> None:
    reached, missed = {"ended_by": "target"}, {"ended_by": "minibatches"}
    both = of_targets(reached, {"ended_by": "target_error", "makespan_s": 1.0, "minibatches": 60})
    assert (both["target_reached"].mean, both["minibatches_to_target"].mean) == (1.0, 50.0)
    assert both["seconds_to_target"].mean == pytest.approx((0.4 + 1.0) / 2)
    assert both["seconds_to_target"].n == 2
    one = of_targets(reached, missed)
    assert one["target_reached"].mean == 0.5
    assert not {"seconds_to_target", "minibatches_to_target"} & set(one), "a mean of the reached ones would be biased"
    assert of_targets(missed)["target_reached"].mean == 0.0
    assert "target_reached" not in of_targets({}), "a record of an earlier version does not say it"
    assert "seconds_to_target" not in of_targets({**reached, "clock": "effects"})


def racing(times_s: dict[int, list[float | None]], **more: Any) -> dict[str, Group]:
    """The groups of a sweep over workers with a target: seconds to it by seed, None where it was missed."""
    points, done = [], {}
    for workers, each in times_s.items():
        for seed, time_s in enumerate(each):
            name = f"workers={workers},seed={seed}"
            points.append(Swept(name, {"workers": workers, "seed": seed}, seed, "x", has_target=True))
            ended = {"ended_by": "minibatches"} if time_s is None else {"ended_by": "target", "makespan_s": time_s}
            done[name] = summary(100.0 * workers, seed, **ended, **more)
    return {group.name: group for group in sweep_tables.groups(points, done)}


def test_the_target_speed_up_is_of_seconds_to_the_target_paired_by_seed() -> None:
    found = racing({1: [8.0, 6.0], 2: [8.0, 6.0], 4: [4.0, 2.0]})
    means = {name: group.means() for name, group in found.items()}
    assert [means[name]["target_speedup"].mean for name in found] == [1.0, 1.0, (8 / 4 + 6 / 2) / 2]
    assert [means[name]["speedup"].mean for name in found] == [1.0, 2.0, 4.0]
    assert means["workers=4"]["target_speedup"].n == 2
    table = next(results(list(found.values())))
    assert table.headings[2:4] == ["speed-up", "speed-up to target"]
    assert table.title == (
        "speed-up: minibatches/s over those of 1 worker; "
        "speed-up to target: seconds to it of 1 worker over those of the point"
    )
    untimed = racing({1: [8.0], 2: [4.0]}, clock="effects")
    assert not any("target_speedup" in group.means() for group in untimed.values())


def test_a_missed_target_has_no_speed_up_to_it_and_the_other_seeds_make_no_mean() -> None:
    found = racing({1: [8.0, None], 2: [4.0, 4.0], 4: [None, None]})
    assert found["workers=2"].metric("target_speedup") == {0: 2.0}
    assert not any("target_speedup" in group.means() for group in found.values()), "the base missed it once"
    found = racing({1: [8.0], 2: [None], 4: [2.0]})
    assert [group.means().get("target_speedup", (None,))[0] for group in found.values()] == [1.0, None, 4.0]


def test_a_target_that_every_point_reached_is_no_column_and_one_that_a_point_missed_is() -> None:
    for last_s, is_shown in ((4.0, False), (None, True)):
        found = list(racing({1: [8.0], 2: [last_s]}).values())
        assert ("target reached" in next(results(found)).headings) == is_shown
        assert "target_reached" in set(sweep_tables.means(found)["metric"])


def test_a_sweep_tells_how_many_points_were_disturbed_and_the_worst() -> None:
    loads = [{"others": 0.02, "steal": 0.0}, {"others": 0.51, "steal": 0.01}, {"others": 0.2, "steal": 0.0}]
    known = [{"machine_load": load} for load in loads]
    assert list(doubts(known)) == [
        "2 of 3 points were measured beside other work: others took 51% of the machine's cores, its host 1% at worst"
    ]
    assert list(doubts([*known[:1], {}])) == []
    assert list(doubts([{"lateness": {"judged": late}} for late in (0.005, 0.03, None)])) == [
        "1 of 2 points were late, by 3.00% at worst; above 2% a measurement is invalid"
    ]


def test_a_frame_has_the_load_beside_measured_points(tmp_path: Path) -> None:
    points = [(Swept(f"workers={each}", {"workers": each}, 0, "x", False), tmp_path / str(each)) for each in (1, 2)]
    busy = {"machine_load": {"others": 0.5, "steal": 0.25}}
    done = {"workers=1": summary(1.0, 0, **busy), "workers=2": summary(2.0, 0)}
    frame = Sweep(tmp_path, points, done, {}).frame
    assert (frame["machine_load"][0], frame["busy"][0]) == (0.75, True)
    assert math.isnan(frame["machine_load"][1]), "a simulation has none"


def test_the_figure_of_speed_up_draws_the_one_to_the_target_too() -> None:
    scenario = Request.of(TIMING, {"figure": "speedup"}).points[0].scenario
    fig = sweep_figure.figure(scenario, list(racing({1: [8.0], 2: [8.0], 8: [8.0]}).values()))
    assert [axes.get_ylabel() for axes in fig.axes] == [
        "throughput over 1 worker", "speed-up to the target", "mean staleness (versions)",
    ]  # fmt: skip
    assert fig.axes[1].get_title(loc="left") == "highest: 1\nat workers 1"
    assert overflows(fig) == []


def test_frames_have_these_columns_also_of_a_sweep_that_is_opened(tmp_path: Path) -> None:
    swept = asgd_lab.sweep(TIMING, {"sweep": {"workers": [2, 1]}}, out=tmp_path / "out", jobs=1, seeds=2)
    assert swept.frame["speedup"].round(6).tolist() == [2.0, 2.0, 1.0, 1.0]
    again = asgd_lab.Sweep.open(tmp_path / "out")
    assert again.names == swept.names
    for one, other in ((again.frame, swept.frame), (again.means, swept.means), (again.differences, swept.differences)):
        assert one.equals(other)
    assert set(again.differences["metric"]) == {"minibatches_per_s"}, "others are of the run's course"
    assert again[{"workers": 2, "seed": 0}] == swept[0]
