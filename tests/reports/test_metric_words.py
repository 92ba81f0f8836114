"""The better direction of a metric: by the scenario's target or early stop, and else by the metric's name."""

from __future__ import annotations

from typing import Any

import pytest

from asgd_lab.metric_words import higher_is_better
from asgd_lab.scenario import Document
from tests.reports.test_reports import BOWL


@pytest.mark.parametrize(
    ("name", "is_higher"),
    [
        ("test_loss", False),
        ("test_error", False),
        ("test_error_rate", False),
        ("word_error", False),
        ("test_accuracy", True),
        ("validation_accuracy_top5", True),
        ("test_f1_macro", True),
        ("test_margin", None),
        ("loss", False),
    ],
)
def test_a_metric_s_name_tells_which_direction_is_better(name: str, is_higher: bool | None) -> None:
    assert higher_is_better(name) is is_higher
    assert higher_is_better(name, Document.of(BOWL).scenario()) is is_higher


@pytest.mark.parametrize(
    ("limit", "is_higher"),
    [
        ({"early_stop": {"split": "test", "metric": "margin", "patience": 2, "mode": "max"}}, True),
        ({"early_stop": {"split": "test", "metric": "margin", "patience": 2}}, False),
        ({"target": {"split": "test", "metric": "margin", "above": 2.0}}, True),
        ({"target": {"split": "test", "metric": "margin", "below": 2.0}}, False),
    ],
)
def test_a_scenario_s_limit_tells_the_direction_of_its_metric(limit: dict[str, Any], is_higher: bool) -> None:
    scenario = Document.of({**BOWL, "budget": {"minibatches": 60, **limit}}).scenario()
    for name in ("test_margin", "margin", "validation_margin"):
        assert higher_is_better(name, scenario) is is_higher
    assert higher_is_better("test_loss", scenario) is False
