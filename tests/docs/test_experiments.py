"""Figures, answers and pages of the paper's scenarios: each figure is drawn from kept data, and is the kept one."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
from PIL import Image

from tests.docs.fences import ROOT
from tests.figures.drawn import overflows

sys.path.insert(0, str(ROOT / "docs" / "hooks"))
import answers
import experiments
import questions

KEPT = ROOT / "analysis" / "questions" / "paper"
DRAWN = experiments.kept_figures.names()
LARGEST_DIFFERENCE = 2.0  # of 255, in the mean: other versions of libraries draw text in other pixels


def picture(content: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=np.float64)


@pytest.mark.parametrize("name", DRAWN)
def test_the_figure_of_an_experiment_is_drawn_from_the_kept_tables(name: str) -> None:
    drawn = experiments.kept_figures.figure(name)
    assert overflows(drawn) == []
    new = picture(experiments.kept_figures.png(drawn))
    kept = picture((KEPT / f"{name}.png").read_bytes())
    assert new.shape == kept.shape, "python analysis/paper/kept_figures.py"
    assert np.abs(new - kept).mean() < LARGEST_DIFFERENCE, "python analysis/paper/kept_figures.py"


def test_another_experiments_figure_would_be_told_from_the_kept_one() -> None:
    """Figures of one size that differ in their curves alone."""
    one, other = (picture((KEPT / f"{name}.png").read_bytes()) for name in ("figure-1-with-schedule", "figure-1"))
    assert one.shape != other.shape or np.abs(one - other).mean() > LARGEST_DIFFERENCE


def test_every_experiment_has_a_figure_and_an_answer() -> None:
    stems = {path.stem for path in (ROOT / "scenarios" / "paper").glob("*.yaml")}
    assert len(stems) == 17
    assert set(DRAWN) | set(experiments.kept_figures.TIMING) == stems == set(experiments.ANSWERS)
    assert {path.stem for path in KEPT.glob("*.png")} == stems


@pytest.mark.parametrize("name", experiments.names())
def test_the_table_of_an_experiment_has_a_row_for_each_point(name: str) -> None:
    page = questions.page(name)
    points = experiments.kept_figures.points(name.removeprefix("paper/"))
    assert len(re.findall(r"(?m)^\| `", page)) == len(points)
    assert f"/paper/{name.removeprefix('paper/')}.png)" in page
    assert "nan" not in page
    assert answers.short(name) in page


def test_the_error_of_a_point_is_that_of_the_verdicts() -> None:
    """One cell of experiment 3, which scenario and verdicts tell too."""
    text = (ROOT / "scenarios" / "paper" / "figures-3-and-4.yaml").read_text(encoding="utf-8")
    assert f"{experiments.error('momentum', experiments.OWN, at_fetch='keep'):.1f}" == "68.1"
    eight = experiments.error(
        "figures-3-and-4", experiments.OWN, workers=8, n_sync=100, lr=0.08, costs=experiments.cells.COSTS
    )
    assert f"8 clients       {eight:.1f} |" in text
