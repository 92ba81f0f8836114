"""What a report finds in directories: rhythms, replications, points without a result, and pages of other origin."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import asgd_lab
from asgd_lab.counterfactual.files import JSON
from asgd_lab.errors import ScenarioError
from asgd_lab.record import removal
from asgd_lab.reports import synchronisation, time_use, workers
from asgd_lab.reports.content import Plot, Section, Table
from asgd_lab.reports.recorded import opened
from tests.cli.harness import asgd_lab as program
from tests.reports.test_reports import BOWL, here, read

__all__ = ["here"]
APART = [{"name": "asgd", "n_sync": 2}, {"name": "asgd", "n_fetch": 2, "n_push": 6}]
OWN = """
from typing import Literal
from asgd_lab.algorithms import Asgd, Together


class Mine(Asgd):
    name: Literal["own:Mine"]
"""


def swept(changes: dict[str, Any], **sweep: list[Any]) -> Section:
    asgd_lab.sweep({**BOWL, **changes, "sweep": {key.replace("__", "."): each for key, each in sweep.items()}},
                   out="sweep", jobs=1)  # fmt: skip
    asgd_lab.report("sweep")
    return synchronisation.section(opened(Path("sweep")))


def x_of(section: Section, title: str) -> list[float]:
    plot = next(part for part in section.parts if isinstance(part, Plot) and part.title.startswith(title))
    return [x for series in plot.series for x in series.x]


@pytest.mark.usefixtures("here")
def test_points_whose_whole_algorithm_is_swept_have_their_own_rhythms() -> None:
    found = swept({}, algorithm=[*APART, {"name": "asgd", "n_fetch": 6, "n_push": 2}, {"name": "asgd", "n_sync": 6}])
    assert found.is_answered
    assert sorted(x_of(found, "Throughput over n_fetch")) == [2, 2, 6, 6]
    assert "of 4 points are beaten by no other one" in found.answer


@pytest.mark.usefixtures("here")
def test_algorithms_without_the_key_stand_beside_those_that_have_it() -> None:
    found = swept({}, algorithm=[{"name": "sgd"}, {"name": "asgd", "n_sync": 4}], workers=[1])
    assert sorted(x_of(found, "Throughput over n_sync")) == [1, 4]


@pytest.mark.usefixtures("here")
def test_one_rhythm_apart_is_named_as_it_ran() -> None:
    found = swept({"algorithm": {"name": "asgd", "n_fetch": 2, "n_push": 6}}, workers=[1, 2])
    assert "only n_fetch = 2 with n_push = 6 ran." in found.answer


@pytest.mark.usefixtures("here")
def test_an_algorithm_that_is_not_imported_is_not_said_to_have_run_with_n_sync_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("own.py").write_text(OWN)
    monkeypatch.syspath_prepend(".")
    found = swept({"algorithm": {"name": "own:Mine", "n_sync": 5}}, workers=[1, 2])
    assert "only n_sync = 5 ran." in found.answer
    found = program("report", "sweep")
    assert (found.status, found.err) == (0, "")
    assert "only n_sync = 5 ran." in read(Path("sweep/report.html")).said()


@pytest.mark.usefixtures("here")
def test_points_that_all_diverged_are_said_to_have_no_finite_result() -> None:
    found = swept({"task": {**BOWL["task"], "optimizer": {"name": "SGD", "lr": 1e30}}}, algorithm__n_sync=[1, 4])
    assert found.answer.startswith("No point has a finite final test loss")
    assert sorted(x_of(found, "Throughput")) == [1, 4]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("key", ["workers", "algorithm.n_sync", "hardware.server.push_s"])
def test_runs_that_differ_in_more_than_their_seed_are_no_replications(key: str) -> None:
    for seed, value in ((1, 1), (2, 8)):
        asgd_lab.run(BOWL, {"seed": seed, key: value, "name": f"run-{seed}"}, out=f"all/run-{seed}")
    found = opened(Path("all"))
    assert [len(group.runs) for group in found.groups] == [1, 1]
    assert found.keys == {key: [1, 8]}


@pytest.mark.usefixtures("here")
def test_workers_are_kept_where_another_key_changes_with_them() -> None:
    for workers_, step_s in ((1, 0.02), (4, 0.01)):
        asgd_lab.run(BOWL, {"workers": workers_, "hardware.compute.step_s": step_s}, out=f"all/{workers_}")
    assert workers.section(opened(Path("all"))).is_answered


@pytest.mark.usefixtures("here")
def test_runs_that_differ_in_nothing_are_told_apart_and_in_their_seed_alone_are_averaged() -> None:
    for name in ("a", "b"):
        asgd_lab.run(BOWL, out=f"alike/{name}")
        asgd_lab.run(BOWL, {"seed": ord(name)}, out=f"seeds/{name}")
    assert opened(Path("alike")).keys == {"run": ["a", "b"]}
    assert [len(group.runs) for group in opened(Path("seeds")).groups] == [2]


@pytest.mark.usefixtures("here")
def test_a_sweep_s_report_knows_the_points_without_a_result() -> None:
    asgd_lab.sweep({**BOWL, "sweep": {"workers": [1, 2, 4]}}, out="sweep", jobs=1)
    points = json.loads(Path("sweep/sweep.json").read_text())["points"]
    folders = {point["values"]["workers"]: Path("sweep", point["folder"]) for point in points}
    shutil.rmtree(folders[1])
    (folders[4] / "summary.json").write_text("{")
    found = opened(Path("sweep"))
    assert found.failures["workers=1"] == "has not begun"
    assert found.failures["workers=4"].startswith(f"{folders[4]}/summary.json: is damaged")
    assert found.groups[0].fewest_workers == 1
    again = asgd_lab.Sweep.open("sweep")
    assert list(again.failures) == ["workers=1", "workers=4"]
    (folders[4] / "manifest.json").write_text("[]")
    assert "manifest.json" in asgd_lab.Sweep.open("sweep").failures["workers=4"]
    assert program("report", "sweep").status == 0


@pytest.mark.usefixtures("here")
def test_a_run_with_a_live_object_is_reported_by_another_process(tmp_path: Path) -> None:
    asgd_lab.run(BOWL, out="run")
    path = Path("run/scenario.yaml")
    text = path.read_text()
    assert "name: asgd" in text
    path.write_text(text.replace("name: asgd", "name: live:Mine-1a2b3c4d5e6f"))
    found = program("report", "run")
    assert (found.status, found.err) == (0, "")
    with pytest.raises(ScenarioError, match="live"):
        print(asgd_lab.Run.open("run").scenario)


@pytest.mark.usefixtures("here")
def test_a_real_run_with_sampled_rows_has_the_shares_of_the_whole_run() -> None:
    changes = {
        "backend": {"name": "process", "device": "emulated"},
        "hardware": {"compute": {"step_s": 0.001}},
        "evaluate": None,
        "algorithm.n_sync": 1,
        "budget": {"minibatches": 800},
        "record": "sampled",
    }
    run = asgd_lab.run(BOWL, changes, out="run")
    found = time_use.section(opened(Path("run")))
    table = next(part for part in found.parts if isinstance(part, Table) and "computing" in part.headings)
    assert table.rows[0][table.headings.index("computing")] == time_use.share(run.summary["utilisation"]["workers"])
    assert any("sampled rounds alone" in note for note in found.notes)
    titles = [part.title for part in found.parts if isinstance(part, Plot)]
    assert not any("whole run" in title for title in titles)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", ["page", "link", "folder", "aside"])
def test_a_file_that_is_no_report_is_never_overwritten(kind: str) -> None:
    asgd_lab.run(BOWL, out="run")
    mine = Path("mine.html")
    mine.write_text("<p>mine")
    target = Path("run/report.html")
    if kind == "page":
        mine.rename(target)
    elif kind == "link":
        target.symlink_to(mine.absolute())
    elif kind == "folder":
        target.mkdir()
    else:
        target = mine.rename("run/report.html.new")
    before = target.read_text() if kind != "folder" else ""
    for out in ((), ("--out", "run/report.html")):
        found = program("report", "run", *out)
        assert (found.status, found.out) == (2, "")
        assert found.err.startswith(f"--out: {target} exists and is ")
    assert target.is_dir() if kind == "folder" else target.read_text() == before
    removal.clear(Path("run"))
    assert target.is_dir() if kind == "folder" else target.read_text() == before


@pytest.mark.usefixtures("here")
def test_a_report_replaces_a_report_and_a_restart_removes_it() -> None:
    asgd_lab.run(BOWL, out="run")
    for _ in range(2):
        assert program("report", "run").status == 0
    removal.clear(Path("run"))
    assert not Path("run").exists() or list(Path("run").iterdir()) == []


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("mode", "said"), [("max", "highest"), ("min", "lowest")])
def test_a_metric_of_one_s_own_is_best_in_the_direction_of_the_early_stop(mode: str, said: str) -> None:
    stop = {"split": "test", "metric": "loss", "patience": 50, "mode": mode}
    found = swept({"budget": {"minibatches": 60, "early_stop": stop}}, algorithm__n_sync=[1, 6])
    assert f"The final test loss is {said} at" in found.answer


def test_a_comparison_has_a_line_for_each_configuration() -> None:
    points = ["workers=1", "workers=2", "workers=1,algorithm.n_sync=2,hardware.server.push_s=0.1"]
    table = pd.DataFrame({"scenario": "s", "point": points, "workers": [1, 2, 1], "n_sync": 2, "n_push": [2, 2, 2]})
    found = workers._by_line(table)
    assert [(name, len(rows)) for name, rows in found] == [("n_sync=2", 2), ("n_sync=2,hardware.server.push_s=0.1", 1)]
    apart = workers._by_line(table.assign(n_push=5))
    assert apart[0][0] == "n_fetch=2,n_push=5"


def test_a_page_of_an_explained_run_has_what_explain_said(tmp_path: Path) -> None:
    run = asgd_lab.run(BOWL, out=tmp_path / "run")
    said = asgd_lab.explain(run, seeds=2, rates=(0.5, 1.0), causes=("staleness", "placebo"), out=run.path)
    text = html.unescape(asgd_lab.report(run).read_text(encoding="utf-8"))
    assert all(line[1:] in text for line in said.lines)
    assert text.count("Same order, same minibatches, later fetches") >= 1
    rows = re.findall(r'<tr><th scope="row">(staleness|placebo)</th>', text.partition('id="explained"')[2])
    assert rows == ["staleness", "staleness", "placebo", "placebo", "staleness"]


def test_an_explanation_that_is_damaged_is_one_note(tmp_path: Path) -> None:
    run = asgd_lab.run(BOWL, out=tmp_path / "run")
    (run.path / JSON).write_text('{"metric": "test_loss", "lines": []}')
    text = asgd_lab.report(run).read_text(encoding="utf-8")
    assert "no explanation can be read" in text
