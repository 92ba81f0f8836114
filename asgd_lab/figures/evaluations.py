"""The choice of a metric among the evaluations of runs; no drawing library is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asgd_lab.errors import ScenarioError

if TYPE_CHECKING:
    import pandas as pd


def common_metric(
    evals: Sequence[pd.DataFrame], split: str | None = None, metric: str | None = None
) -> tuple[str, str]:
    """The split and the metric to draw, where not stated: test before other splits, error before loss before others."""
    pairs = [{*zip(rows["split"], rows["metric"], strict=True)} for rows in evals]
    common = set.intersection(*pairs)
    if not common:
        raise ScenarioError("the runs have no evaluation of a metric in common")
    alike = {pair for pair in common if split in (None, pair[0]) and metric in (None, pair[1])} or common
    found = min(alike, key=lambda pair: (pair[0] != "test", pair[1] != "error", pair[1] != "loss", pair))
    return split or found[0], metric or found[1]
