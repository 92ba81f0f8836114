"""Each benchmark runs, at sizes that mean nothing; the documentation's numbers are those that were kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.report import Row, kept, read, spread, write
from tests.benchmarks.suite import BENCHMARKS
from tests.benchmarks.table import RESULTS, table
from tests.benchmarks.text_minutes import main as minutes
from tests.whole import sample

KEYS = {"benchmark", "what", "median", "low", "high", "n", "unit", "told", "date", "machine"}


def test_every_benchmark_of_the_folder_is_in_the_suite() -> None:
    folder = Path(__file__).parent / "benchmarks"
    found = {path.stem for path in folder.glob("*.py") if "def measure(" in path.read_text(encoding="utf-8")}
    assert found == set(BENCHMARKS)
    mute = {path.stem for path in folder.glob("*.py")} - found
    assert mute == {"__init__", "__main__", "memory", "plain", "planned", "report", "suite", "table", "text_minutes"}


@pytest.mark.parametrize("name", sample(BENCHMARKS, 7))
def test_the_benchmark_runs_and_what_it_measures_is_kept(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    main([name, "--tiny", "--results", str(results)])
    rows = read(results)
    said = capsys.readouterr().out
    assert rows
    assert any(row["told"] for row in rows)
    assert len({row["what"] for row in rows}) == len(rows)
    for row in rows:
        assert (set(row), row["benchmark"]) == (KEYS, name)
        assert math.isfinite(row["median"])
        assert f"{row['what']}: {spread(row)} (n = {row['n']})" in said
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.xdist_group("process")
def test_the_loss_after_some_minutes_is_kept_with_an_equal_replay(tmp_path: Path) -> None:
    results = tmp_path / "minutes.json"
    small = {"task.corpus_bytes": 20_000, "task.context": 8, "task.width": 8, "task.layers": 1, "task.heads": 2}
    changes = [f"{key}={value}" for key, value in small.items()]
    for case in ("1 real worker", "8 simulated workers"):
        minutes(["0.01", "--cases", case, "--out", str(tmp_path), "--results", str(results), "--set", *changes])
    one, eight = json.loads(results.read_text())
    assert one["replay_is_equal"]
    assert eight["replay_is_equal"]
    assert one["test_loss"] > 0
    assert eight["step_s"] == pytest.approx(0.6 / one["minibatches"])
    assert eight["minibatches"] > one["minibatches"]


def test_a_benchmark_that_runs_again_takes_the_place_of_its_own_rows_alone(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    for name, value in [("a", 1.0), ("b", 2.0), ("a", 3.0)]:
        write(results, name, [kept(name, Row("it", [value]))])
    assert {row["benchmark"]: row["median"] for row in read(results)} == {"a": 3.0, "b": 2.0}


def test_a_row_is_written_with_its_quartiles() -> None:
    row = kept("a", Row("it", [1.0, 2.004, 3.0, 4.0, 51_437.2], "µs"))
    assert (row["n"], spread(row)) == (5, "3 [2, 4] µs")
    assert spread(kept("a", Row("it", [51_437.2]))) == "51,400"
    assert spread(kept("a", Row("it", [242_234]))) == "242,234"


def test_what_was_kept_is_of_known_benchmarks_and_the_table_has_each_row_that_is_told() -> None:
    rows = read(RESULTS)
    assert rows
    assert all(set(row) == KEYS for row in rows)
    assert {row["benchmark"] for row in rows} == set(BENCHMARKS)
    lines = table(rows).splitlines()
    told = [row for row in rows if row["told"]]
    assert len(lines) == 4 + len(told)
    for row, line in zip(told, lines[4:], strict=True):
        assert (row["what"] in line, spread(row) in line) == (True, True)
