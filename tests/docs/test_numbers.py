"""Numbers of the pages are those of kept files; the comments of scenarios are held against kept sweeps."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.docs import numbers
from tests.docs.fences import PAGES, ROOT, SNIPPET, resolved
from tests.docs.test_readme import CONTRIBUTING, relative_clauses

sys.path.insert(0, str(ROOT / "docs" / "hooks"))
import answers
import experiments
import notebooks
import questions

FIGURES = ROOT / "analysis" / "figures"
SCENARIOS = [*questions.names(), *experiments.names()]
INVISIBLE = re.compile(r"(?ms)^```.*?^```$|<!--.*?-->|`[^`\n]*`|(?<=\])\([^)\s]*\)")


def prose(text: str) -> str:
    """A page in one line, without blocks, code, comments and the targets of links."""
    return re.sub(r"\n(?!\d\. )\s*", " ", INVISIBLE.sub(" ", text))


@pytest.mark.parametrize("path", [*PAGES, CONTRIBUTING], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_number_of_a_page_has_an_origin(path: Path) -> None:
    included = [
        ROOT / match[1] for line in path.read_text(encoding="utf-8").splitlines() if (match := SNIPPET.match(line))
    ]
    whole = left = prose("\n".join(resolved(path)))
    for kept in included:
        if kept.is_relative_to(ROOT / "analysis"):  # a kept file as it is
            left = left.replace(prose(kept.read_text(encoding="utf-8")).strip(), " ")
    for entry in numbers.PAGES.get(str(path.relative_to(ROOT)), ()):
        phrase = " ".join((entry.phrase() if isinstance(entry, numbers.Kept) else entry.phrase).split())
        assert phrase in whole, f"{phrase}: its source says so, and the page does not"
        left = left.replace(phrase, " ")
    for pattern in numbers.GENERAL:
        left = re.sub(pattern, " ", left, flags=re.M)
    assert re.findall(r".{0,40}\d.{0,40}", left) == [], "add them to tests/docs/numbers.py"


def test_every_page_with_origins_is_a_page() -> None:
    assert set(numbers.PAGES) <= {str(path.relative_to(ROOT)) for path in [*PAGES, CONTRIBUTING]}


def test_intervals_of_the_papers_page_are_in_the_kept_verdicts() -> None:
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    kept = (ROOT / "analysis" / "figures" / "verdicts.md").read_text(encoding="utf-8")
    found = re.findall(r"\d+\.\d ± \d+\.\d", page)
    assert found
    assert all(interval in kept for interval in found)
    assert answers.filled("<!-- table: verdicts -->") == kept.split("\n\n")[0]


@pytest.mark.skipif(not answers.COMPARED.exists(), reason="`make predictions` keeps a comparison")
def test_the_kept_figure_of_predictions_is_of_the_kept_table(tmp_path: Path) -> None:
    from asgd_lab.figures import speedup, style

    drawn, _ = style.save(speedup.speedup_figure(pd.read_csv(answers.COMPARED)), tmp_path / "compare")
    pictures = [np.asarray(Image.open(path).convert("L"), dtype=float) for path in (drawn, FIGURES / "compare.png")]
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() < 2


WITHOUT_FIGURE = {"ilsvrc-2012", "text-8-workers-simulated"}  # a run of days, and one of minutes


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_has_an_answer_and_a_figure_or_a_reason(name: str) -> None:
    text = questions.page(name)
    assert len(answers.short(name).split()) >= 8
    assert "![" in text or "| --- |" in text or name in WITHOUT_FIGURE


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_sentence_of_a_scenario_begins_with_a_relative_clause(name: str) -> None:
    assert relative_clauses(questions.page(name)) == []


def table(name: str, label: str) -> list[list[float]]:
    """The rows of numbers behind a label in a scenario's comment."""
    text = (ROOT / "scenarios" / f"{name}.yaml").read_text(encoding="utf-8")
    rows = re.findall(rf"(?m)^#\s+{label}\s+([\d.%\s]+)", text)
    return [[float(each.rstrip("%")) for each in row.split()] for row in rows]


def test_the_table_of_a_slower_server_is_that_of_the_kept_sweep() -> None:
    for fetch_s in ("0.0", "0.01"):
        (told,) = table("can-a-slower-server-be-faster", f"fetch_s = {float(fetch_s):g}")
        kept = [
            answers.value("can-a-slower-server-be-faster", "minibatches_per_s", fetch_s=fetch_s, step_s=step_s)
            for step_s in (0.08, 0.04, 0.02, 0.01)
        ]
        assert told == [round(rate) for rate in kept]


def test_the_table_of_where_time_goes_is_that_of_the_kept_sweep() -> None:
    for workers in (8, 32):
        told = table("where-does-time-go", f"{workers} workers")[0]
        for share, n_sync in zip(told, (1, 3, 10, 30, 100), strict=True):
            kept = 100 * answers.value("where-does-time-go", "worker_utilisation", workers=workers, n_sync=n_sync)
            assert kept == pytest.approx(share, abs=0.5 if share < 99.5 else 0.15)


def test_staleness_of_the_kept_sweep_is_workers_less_one() -> None:
    for distribution in ("constant", "lognormal", "exponential"):
        for workers in (2, 8, 32):
            mean = answers.value("how-stale", "staleness_mean", distribution=distribution, workers=workers)
            assert mean == pytest.approx(workers - 1, abs=0.05)


@pytest.mark.parametrize("name", notebooks.read())
def test_kept_outputs_are_those_of_the_notebook_as_it_is(name: str) -> None:
    copies = notebooks.kept(name)
    cells = notebooks.read()[name]
    assert [copy["cell_type"] for copy in copies] == [cell.kind for cell in cells]
    assert ["".join(copy["source"]) for copy in copies] == [cell.source for cell in cells], "make notebooks"


def test_a_kept_sweep_is_made_by_its_scenario(tmp_path: Path) -> None:
    """One cheap point again."""
    from tests.cli.harness import asgd_lab

    path = ROOT / "scenarios" / "can-a-slower-server-be-faster.yaml"
    keys = ["sweep=null", "hardware.server.fetch_s=0.01", "hardware.compute.step_s=0.08"]
    said = asgd_lab("run", path, *(each for key in keys for each in ("--set", key)), "--out", tmp_path / "run")
    assert said.status == 0, said
    rate = json.loads((tmp_path / "run" / "summary.json").read_text())["minibatches_per_s"]
    kept = answers.value("can-a-slower-server-be-faster", "minibatches_per_s", fetch_s="0.01", step_s=0.08)
    assert rate == pytest.approx(kept, rel=1e-9)
