"""Results of a sweep over one of its values, and the colours of all figures."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from asgd_lab.errors import ScenarioError
from asgd_lab.figures import style
from asgd_lab.figures.values import Measure, over_values
from tests.figures.drawn import labels, overflows

RATE = Measure("rate", "minibatches per second")
COST = Measure("cost", "seconds to the target", best="min")


def table(**keys: list[object]) -> pd.DataFrame:
    """The table of a sweep of these keys, with two metrics."""
    rows = []
    for values in itertools.product(*keys.values()):
        for metric in ("rate", "cost"):
            mean = 1.0 + len(rows)
            here = dict(zip(keys, values, strict=True))
            rows.append({**here, "metric": metric, "mean": mean, "low": mean - 0.5, "high": mean + 0.5, "n": 3})
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace("__", "."))


def test_the_numbers_with_the_most_values_are_the_axis_and_the_others_lines_and_columns() -> None:
    swept = table(task__lr=[0.1, 0.2], workers=[1, 2], hardware__step_s=[0.01, 0.02, 0.04, 0.08])
    fig = over_values(swept, [RATE, COST])
    assert len(fig.axes) == 4
    assert {axes.get_xlabel() for axes in fig.axes} == {"step (s)"}
    assert [axes.get_ylabel() for axes in fig.axes] == [RATE.label, "", COST.label, ""]
    assert [axes.get_title(loc="left").split("\n")[0] for axes in fig.axes[:2]] == ["workers = 1", "workers = 2"]
    assert labels(fig) == ["0.1", "0.2"]
    assert overflows(fig) == []


def test_panels_of_one_scale_show_every_point() -> None:
    """The largest values are in the last panel."""
    fig = over_values(table(workers=[1, 2], lr=[0.1, 0.2, 0.4]).assign(low=np.nan, high=np.nan), [RATE])
    for axes in fig.axes:
        low, high = axes.get_ylim()
        for line in axes.lines:
            assert all(low <= value <= high for value in line.get_ydata())


def test_a_title_says_the_best_value_and_where_it_is() -> None:
    fig = over_values(table(workers=[1, 2, 4]), [RATE, COST], "workers")
    assert [axes.get_title(loc="left") for axes in fig.axes] == ["highest: 5\nat workers 4", "lowest: 2\nat workers 1"]
    assert len(fig.axes[0].containers) == 1  # a line with its intervals


@pytest.mark.parametrize(
    "swept",
    [
        table(algorithm=["asgd(n_sync=10,push=gradient,rule=[adagrad(lr=0.01)])", "sync_sgd", "x" * 60]),
        table(a=[1, 2], b=[1, 2], c=[1, 2, 3], d=["x", "y"]),
        table(a=list(range(1, 13)), b=list(range(12))),
        table(a=[0.0, 1e-6, 1e9]),
        table(a=[True, False]),
        table(a=[1, 2], b=["one value"]),
        table(a=[1, 2]).assign(low=np.nan, high=np.nan),
    ],
    ids=["texts", "four keys", "many values", "wide", "truths", "one value", "one seed"],
)
def test_any_sweep_is_drawn_and_no_text_is_cut_off(swept: pd.DataFrame) -> None:
    assert overflows(over_values(swept, [RATE, COST])) == []


def test_what_compares_nothing_is_refused() -> None:
    with pytest.raises(ScenarioError, match="there is one point"):
        over_values(table(a=[1]), [RATE])
    with pytest.raises(ScenarioError, match="no point has a number"):
        over_values(table(a=[1, 2]), [Measure("speedup", "speed-up")])


@pytest.mark.parametrize("values", [list(range(1, count + 1)) for count in (2, 3, 5, 7)] + [["a", "b", "c", "d"]])
def test_lines_can_be_told_apart_by_everybody_and_stand_out_from_the_ground(values: list[object]) -> None:
    """Viénot, Brettel, Mollon 1999, Digital Video Colourmaps for Checking the Legibility of Displays by Dichromats."""
    colors = style.series(values)
    assert all(style.contrast(color, "w") >= 2.8 for color in colors)
    kinds = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
        "all": np.eye(3).tolist(),
    }
    for seen in kinds.values():
        linear = np.array([to_rgb(color) for color in colors]) ** 2.2 @ np.array(seen).T
        shown = 255 * linear.clip(0, 1) ** (1 / 2.2)
        apart = [np.linalg.norm(one - other) for one, other in itertools.combinations(shown, 2)]
        assert min(apart) > 20
