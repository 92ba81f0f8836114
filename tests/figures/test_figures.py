from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from asgd_lab.errors import ScenarioError
from asgd_lab.figures import style
from asgd_lab.figures.curves import error_curves, learning_curves, staleness_histogram, staleness_histograms
from asgd_lab.figures.speedup import speedup_figure
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from tests.figures.drawn import labels, overflows


def comparison(workers: tuple[int, ...] = (1, 2, 4, 8), n_syncs: tuple[int, ...] = (10, 100)) -> pd.DataFrame:
    rows = [
        {
            "point": f"{group},{count},{n_sync}",
            "group": group,
            "workers": count,
            "n_sync": n_sync,
            "saturated": n_sync == 10 and count == 8,
            "predicted": min(count, n_sync / 2),
            "measured_mean": 0.98 * min(count, n_sync / 2),
            "measured_low": 0.9 * min(count, n_sync / 2),
            "measured_high": 1.06 * min(count, n_sync / 2),
            "repeats": 3,
            "staleness_predicted": count - 1.0,
            "staleness_measured": count - 1.25,
            "error": 0.02,
        }
        for group in ("cpu", "emulated")
        for n_sync in n_syncs
        for count in workers
    ]
    return pd.DataFrame(rows)


def run(path: Path, workers: int = 2, stale: dict[int, int] | None = None, parameters: str = "server") -> Path:
    directory = RunDirectory.create(path, "name: toy\n")
    for number in range(3):
        value = 0.5 - 0.1 * number
        directory.evals.add((number * 10**9, number, 100 * number, parameters, "test", "error", value))
        for worker in range(workers):
            row = (number * 10**9, number, 100 * number, f"replica-{worker}", "test", "error", value + 0.1 * worker)
            directory.evals.add(row)
    statistics = Statistics(workers)
    for staleness, count in (stale or {}).items():
        for _ in range(count):
            statistics.applied(staleness, 1)
    arguments = {"backend": "sim", "seed": 0, "makespan_ns": 1, "updates": 1, "final": {}, "params_sha256": ""}
    directory.finish(statistics.summary(**arguments), "done", None)  # type: ignore[arg-type]
    return path


def test_speed_up_is_drawn_beside_the_ideal_with_intervals_a_row_of_panels_a_device() -> None:
    fig = speedup_figure(comparison())
    assert len(fig.axes) == 6
    for device, (speedup, agreement, staleness) in zip(("CPU", "Emulated"), (fig.axes[:3], fig.axes[3:]), strict=True):
        assert speedup.get_xlabel() == staleness.get_xlabel() == "workers"
        assert agreement.get_xlabel() == "predicted speed-up"
        assert speedup.get_title(loc="left") == f"{device}: speed-up reaches 7.8\nwith 8 workers"
        assert agreement.get_title(loc="left") == "Predictions err by 2.0%\nin the median, 2.0% at most"
        assert staleness.get_title(loc="left") == "Mean staleness is predicted\nwithin 0.25 versions"
        assert staleness.get_ylabel() == "mean staleness (versions)"
        assert len(speedup.containers) == len(agreement.containers) == 2  # error bars


def test_a_comparison_has_two_encodings_colours_and_lines_beside_points() -> None:
    fig = speedup_figure(comparison(n_syncs=(1, 10, 100)))
    lines = [line for axes in fig.axes for line in axes.lines]
    assert {line.get_marker() for line in lines} - {"|", "_"} == {"None", "o"}
    assert {line.get_linestyle() for line in lines} == {"-", ":", "None"}
    assert len({line.get_markersize() for line in lines if line.get_marker() == "o"}) == 1
    assert labels(fig) == [
        *("n_sync = 1", "n_sync = 10", "n_sync = 100", "predicted", "measured (mean and 95% interval)"),
        "ideal speed-up; workers − 1",
    ]


@pytest.mark.parametrize(
    "table",
    [
        comparison(),
        comparison((1,), (10,)),
        comparison((1, 2), (1, 2, 3, 4, 5, 6)),
        comparison(tuple(2**k for k in range(11)), (100,)),
        comparison().assign(measured_low=-1.0),
        comparison().assign(measured_low=np.nan, measured_high=np.nan),
    ],
    ids=["usual", "one point", "many n_sync", "many workers", "wide interval", "no interval"],
)
def test_no_text_of_the_comparison_is_cut_off(table: pd.DataFrame) -> None:
    assert overflows(speedup_figure(table)) == []


def test_the_servers_curve_is_thick_and_the_replicas_mean_has_a_band(tmp_path: Path) -> None:
    fig = error_curves({"two workers": run(tmp_path / "run")})
    (axes,) = fig.axes
    server, replicas = axes.lines
    assert server.get_linewidth() > replicas.get_linewidth()
    assert np.asarray(server.get_xdata()).tolist() == [0, 100, 200]
    np.testing.assert_allclose(np.asarray(server.get_ydata()), [0.5, 0.4, 0.3])
    np.testing.assert_allclose(np.asarray(replicas.get_ydata()), [0.55, 0.45, 0.35])
    (band,) = axes.collections
    np.testing.assert_allclose(band.get_datalim(axes.transData).get_points(), [[0, 0.3], [200, 0.6]])
    assert axes.get_title(loc="left") == "Test error ends at 30.0%"
    assert labels(fig) == ["two workers", "server", "replicas: mean, range"]
    assert overflows(fig) == []


def test_curves_can_run_over_time_and_over_replicas_alone(tmp_path: Path) -> None:
    fig = error_curves({"a": run(tmp_path / "a", parameters="replica-7")}, x="time_s")
    assert fig.axes[0].get_xlabel() == "time (s)"
    assert fig.axes[0].get_title(loc="left") == "Test error of the replicas"


def test_a_run_without_the_metric_says_which_it_has(tmp_path: Path) -> None:
    path = run(tmp_path / "run")
    with pytest.raises(ScenarioError, match="has no evaluations of train loss; it has test error"):
        error_curves({"a": path}, metric="loss", split="train")


def test_curves_of_replications_are_their_mean_over_minibatches_and_over_time(tmp_path: Path) -> None:
    runs = {1: [run(tmp_path / "a"), run(tmp_path / "b")], 10: [run(tmp_path / "c")]}
    fig = learning_curves(runs, "algorithm.n_sync")
    assert [axes.get_xlabel() for axes in fig.axes] == ["minibatches (all workers)", "time (s)"]
    assert fig.legends[0].get_title().get_text() == "n_sync (minibatches)"
    assert labels(fig) == ["1", "10", "server", "replicas: mean, range"]
    np.testing.assert_allclose(np.asarray(fig.axes[1].lines[0].get_xdata()), [0, 1, 2])
    np.testing.assert_allclose(np.asarray(fig.axes[0].lines[0].get_ydata()), [0.5, 0.4, 0.3])
    assert overflows(fig) == []


def test_histograms_of_staleness_are_a_panel_a_label_and_count_replications_together(tmp_path: Path) -> None:
    panels = {
        f"workers={count}": {
            name: [run(tmp_path / f"{count}{name}0", stale={0: 1}), run(tmp_path / f"{count}{name}1", stale={count: 3})]
            for name in ("even", "odd")
        }
        for count in (2, 8)
    }
    fig = staleness_histograms(panels)
    assert [axes.get_title(loc="left") for axes in fig.axes] == ["workers=2\nmean 1.5", "workers=8\nmean 6.0"]
    shares = fig.axes[0].patches[0].get_data()  # type: ignore[attr-defined]
    np.testing.assert_allclose(shares.values, [0.25, 0, 0.75])
    assert labels(fig) == ["even", "odd", "mean"]
    assert overflows(fig) == []


def test_the_staleness_histogram_shows_shares_and_means(tmp_path: Path) -> None:
    runs = {"even": run(tmp_path / "a", stale={0: 1, 2: 3}), "none": run(tmp_path / "b")}
    fig = staleness_histogram(runs)
    (axes,) = fig.axes
    shares = axes.patches[0].get_data()  # type: ignore[attr-defined]
    assert shares.values.tolist() == [0.25, 0, 0.75]
    assert shares.edges.tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [1.5, 1.5]
    assert axes.get_title(loc="left") == "Mean staleness from 0.0 to 1.5 versions"
    assert overflows(fig) == []


def test_a_saved_figure_is_a_png_and_a_pdf_with_the_same_bytes_twice(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two.png"):
        files = style.save(speedup_figure(comparison()), tmp_path / "new" / name)
        assert [file.suffix for file in files] == [".png", ".pdf"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    assert contents[0][0].startswith(b"\x89PNG")
    assert contents[0][1].startswith(b"%PDF")


def test_a_dotted_name_keeps_its_dots(tmp_path: Path) -> None:
    files = style.save(Figure(), tmp_path / "lr=0.1")
    assert [file.name for file in files] == ["lr=0.1.png", "lr=0.1.pdf"]


def test_the_users_settings_stay_as_they_were() -> None:
    names = [name for name in matplotlib.rcParams if name != "backend"]  # to look at it is to choose it
    before = {name: matplotlib.rcParams[name] for name in names}
    speedup_figure(comparison())
    assert {name: matplotlib.rcParams[name] for name in names} == before


def test_drawing_needs_no_display_and_no_pyplot_figure(tmp_path: Path) -> None:
    code = (
        "import sys, pandas\n"
        "from asgd_lab.figures import speedup, style\n"
        "style.save(speedup.speedup_figure(pandas.read_json(sys.argv[1])), sys.argv[2])\n"
        "import matplotlib.pyplot\n"
        "print(matplotlib.pyplot.get_fignums(), 'tkinter' in sys.modules)\n"
    )
    comparison().to_json(tmp_path / "table.json")
    command = [sys.executable, "-c", code, str(tmp_path / "table.json"), str(tmp_path / "figure")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"
    assert (tmp_path / "figure.pdf").exists()
