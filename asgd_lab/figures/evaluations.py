"""The choice of a metric among the evaluations of runs; no drawing library is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asgd_lab.errors import ScenarioError

if TYPE_CHECKING:
    import pandas as pd


def common_metric(evals: Sequence[pd.DataFrame]) -> tuple[str, str]:
    """The split and the metric to draw: test before other splits, error before loss before others."""
    pairs = [{*zip(rows["split"], rows["metric"], strict=True)} for rows in evals]
    common = set.intersection(*pairs)
    if not common:
        raise ScenarioError("the runs have no evaluation of a metric in common")
    return min(common, key=lambda pair: (pair[0] != "test", pair[1] != "error", pair[1] != "loss", pair))
