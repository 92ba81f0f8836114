"""What each command does when nothing is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pandas as pd
import pytest
from ruamel.yaml import YAML

from asgd_lab.backends import build
from asgd_lab.backends import run as backends
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Document, parse_assignment, presets
from asgd_lab.tasks.quadratic import QuadraticTask
from tests.cli.harness import QUADRATIC, asgd_lab

FILES = {
    *("scenario.yaml", "manifest.json", "summary.json", "trace.json", "checkpoints"),
    *("effects.parquet", "minibatches.parquet", "evals.parquet"),
}


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("bowl.yaml")
    path.write_text(QUADRATIC)
    return path


def test_a_run_leaves_the_run_directory_of_the_contract_and_says_its_numbers(scenario: Path) -> None:
    said = asgd_lab("run", scenario, "--out", "out/first")
    out = Path("out/first")
    assert (said.status, said.err) == (0, "")
    assert {path.name for path in out.iterdir()} == FILES
    summary = read_summary(out)
    assert (summary["status"], summary["backend"], summary["workers"], summary["seed"]) == ("done", "sim", 2, 3)
    assert summary["minibatches"] == 40
    assert json.loads((out / "manifest.json").read_text())["status"] == "done"
    assert set(tables.read(out, "effects")["kind"]) >= {"fetch", "train", "push", "apply"}
    assert len(tables.read(out, "minibatches")) >= 40
    for words in ("makespan", f"{summary['makespan_s']:.3f} s", "2 workers", "staleness", "test loss"):
        assert words in said.out
    assert said.out.splitlines()[-1] == "recorded in out/first"


def test_the_resolved_scenario_in_the_directory_runs_again_to_the_same_bits(scenario: Path) -> None:
    asgd_lab("run", scenario, "--out", "a", "--seed", "8", "--set", "algorithm.n_sync=3")
    said = asgd_lab("run", "a/scenario.yaml", "--out", "b")
    assert said.status == 0
    a, b = read_summary("a"), read_summary("b")
    assert a == b
    assert a["seed"] == 8
    pd.testing.assert_frame_equal(tables.read("a", "effects"), tables.read("b", "effects"))


def test_without_out_a_run_goes_to_a_new_directory_below_runs(scenario: Path) -> None:
    said = [asgd_lab("run", scenario).out.splitlines()[-1] for _ in range(2)]
    places = [line.removeprefix("recorded in ") for line in said]
    assert len(set(places)) == 2
    for place in places:
        assert re.fullmatch(r"runs/bowl/\d{8}-\d{6}(-\d+)?", place)
        assert read_summary(place)["status"] == "done"


def test_options_replace_what_the_file_says(scenario: Path) -> None:
    said = asgd_lab(
        *("run", scenario, "--out", "out", "--backend", "inline", "--seed", "11"),
        *("--set", "workers=3", "--set", "task.optimizer={name: SGD, lr: 0.25}"),
    )
    assert said.status == 0
    resolved = Document.read("out/scenario.yaml").scenario()
    assert (resolved.backend.name, resolved.seed, resolved.workers) == ("inline", 11, 3)
    assert resolved.task.optimizer.options == {"lr": 0.25}  # type: ignore[union-attr]
    assert "this backend has no clock" in said.out


def test_a_sweep_makes_a_directory_a_point_and_a_table(scenario: Path) -> None:
    scenario.write_text(QUADRATIC + "sweep: {algorithm.n_sync: [1, 5], workers: [1, 2]}\n")
    said = asgd_lab("run", scenario, "--out", "out", "--jobs", "1")
    assert (said.status, said.err) == (0, "")
    points = [f"algorithm.n_sync={n_sync},workers={workers}" for n_sync in (1, 5) for workers in (1, 2)]
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(
        [*points, "sweep.csv", "sweep.json", "speedup.png", "speedup.pdf"]
    )
    lines = said.out.splitlines()
    for number, point in enumerate(points, start=1):
        assert {path.name for path in (Path("out") / point).iterdir()} == FILES
        summary = read_summary(Path("out") / point)
        (finished,) = (line for line in lines if line.startswith(f"[{number}/4] {point}: "))
        assert f"{summary['makespan_s']:.3f} s" in finished
        (row,) = (line for line in lines if line.startswith(f"│ {point} "))
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        base = read_summary(Path("out") / point.replace("workers=2", "workers=1"))
        speedup = summary["minibatches_per_s"] / base["minibatches_per_s"]
        assert cells[1:] == [
            f"{speedup:.2f}",
            f"{speedup / summary['workers']:.1%}",
            f"{summary['makespan_s']:.3f}",
            f"{summary['minibatches_per_s']:,.1f}",
            f"{summary['staleness']['mean']:.2f}",
            f"{summary['utilisation']['workers']:.1%}",
            f"{summary['utilisation']['server']:.1%}",
            f"{summary['final']['test_loss']:.4g}",
        ]
    assert lines[-1] == "recorded in out"


def test_a_sweep_begins_its_points_with_one_warm_start_a_seed_and_leaves_none_of_their_data(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[weakref.ref[QuadraticTask]] = []
    workers: list[int] = []
    learner = QuadraticTask.learner

    def seen(task: QuadraticTask, worker: int, *others: Any) -> Any:
        tasks.append(weakref.ref(task))
        workers.append(worker)
        return learner(task, worker, *others)

    monkeypatch.setattr(QuadraticTask, "learner", seen)
    monkeypatch.setattr(build, "_warmed", {})
    scenario.write_text(QUADRATIC + "warm_start: {minibatches: 3}\nsweep: {algorithm.n_sync: [1, 5], seed: [0, 1]}\n")
    assert asgd_lab("run", scenario, "--out", "out", "--jobs", "1").status == 0
    assert workers.count(build.WARM_UP_WORKER) == 2
    assert not any(task() for task in tasks)
    alone = asgd_lab(
        "run", scenario, "--out", "alone", "--set", "sweep={}", "--set", "algorithm.n_sync=5", "--set", "seed=0"
    )
    assert alone.status == 0
    point = read_summary(Path("out") / "algorithm.n_sync=5,seed=0")
    assert read_summary(Path("alone"))["params_sha256"] == point["params_sha256"]


def test_what_is_overridden_is_not_swept(scenario: Path) -> None:
    scenario.write_text(QUADRATIC + "sweep: {seed: [1, 2]}\n")
    asgd_lab("run", scenario, "--out", "out", "--seed", "5")
    assert read_summary("out")["seed"] == 5


def test_validate_counts_the_runs_and_trains_nothing(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "execute", None)
    assert asgd_lab("validate", scenario).out == "bowl.yaml: valid; 1 run\n"
    said = asgd_lab("validate", scenario, "--set", "sweep={seed: [1, 2, 3]}")
    assert (said.status, said.out, said.err) == (0, "bowl.yaml: valid; 3 runs\n", "")
    assert list(Path().iterdir()) == [scenario]


def test_validate_reads_the_run_that_a_scenario_starts_from(scenario: Path) -> None:
    asgd_lab("run", scenario, "--out", "first")
    said = asgd_lab("validate", scenario, "--set", "warm_start={run: first}")
    assert said.status == 0
    said = asgd_lab("validate", scenario, "--set", "warm_start={run: second}")
    assert said.status == 2
    assert said.err.startswith("--set warm_start: warm_start.run: ")
    assert "second" in said.err
    hardware = "hardware.compute={distribution: empirical, run: second}"
    said = asgd_lab("validate", scenario, "--set", hardware)
    assert said.status == 2
    assert said.err.startswith("--set hardware.compute: hardware.compute.run: second")
    Path("first/effects.parquet").write_bytes(b"torn")
    said = asgd_lab("validate", scenario, "--set", hardware.replace("second", "first"))
    assert said.status == 2
    assert said.err.startswith("--set hardware.compute: hardware.compute.run: first/effects.parquet: is damaged: ")
    assert said.err.count("\n") == 1


def test_the_schema_describes_a_scenario(scenario: Path) -> None:
    said = asgd_lab("schema")
    assert said.status == 0
    schema = json.loads(said.out)
    jsonschema.validate(YAML(typ="safe").load(scenario.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x"}, schema)


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        ("algorithms", {"asgd": "GPU A-SGD", "ssp": "Stale synchronous", "sync_sgd": "Lock-step", "sgd": "Plain SGD"}),
        ("codecs", {"cast": "Sends each element"}),
        ("rules", {"add": "Adds a delta", "scale": "Multiplies", "momentum": "Replaces", "adadelta": "Adadelta"}),
        ("tasks", {"quadratic": "A noisy", "classification": "A network", "timing": "Messages of a stated size"}),
        ("backends", {"inline": "one process", "sim": "virtual time", "process": "a real run"}),
        ("models", {"mlp": "Pixels", "lenet": "LeNet-5", "package.module:factory": "your own"}),
    ],
)
def test_list_says_what_can_be_named_and_what_it_is(kind: str, entries: dict[str, str]) -> None:
    for said in (asgd_lab("list", kind), asgd_lab("list")):
        assert (said.status, said.err) == (0, "")
        for name, words in entries.items():
            assert re.search(rf"^{re.escape(name)} +{re.escape(words)}", said.out, re.MULTILINE), said.out
    if kind == "models":
        assert "resnet18" in said.out


def test_list_shows_presets_briefly_beside_the_rest_and_alone_with_every_number_and_its_source() -> None:
    brief, full = asgd_lab("list"), asgd_lab("list", "presets")
    assert (brief.status, brief.err, full.status, full.err) == (0, "", 0, "")
    for name in presets.names():
        preset = presets.read(name)
        assert re.search(rf"^{name} +{re.escape(preset.description[:40])}", brief.out, re.MULTILINE), brief.out
        assert "bytes_per_s = " not in brief.out
        block = re.search(rf"^{name}$(.*?)(?:^$|\Z)", full.out, re.MULTILINE | re.DOTALL)
        assert block is not None, full.out
        said = "".join(block.group(1).split())
        for words in (preset.description, *preset.sources.values()):
            assert "".join(words.split()) in said
        stated = dict(re.findall(r"^ +([a-z][\w.]*) = (.*?) *$", block.group(1), re.MULTILINE))
        assert {key: parse_assignment(f"{key}={value}")[1] for key, value in stated.items()} == dict(
            presets.leaves(preset.hardware)
        )


def test_long_work_without_a_terminal_is_told_in_plain_lines(scenario: Path) -> None:
    said = asgd_lab("run", scenario, "--set", "budget.minibatches=20000")
    assert (said.status, said.err) == (0, "")
    assert "\x1b" not in said.out
    assert re.search(
        r"^\d+\.\d s, [\d,]+ minibatches, [\d.,]+ minibatches/s, .*% of the budget", said.out, re.MULTILINE
    )


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, asgd_lab.app.cli; print(*{'torch', 'pandas', 'pyarrow', 'scipy', 'simpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_run_on_the_step_times_of_a_long_one_is_recorded_and_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("long.yaml").write_text(
        "name: long\ntask: {name: timing, size_bytes: 8}\nalgorithm: {name: asgd, n_sync: 500}\nworkers: 2\n"
        "backend: sim\nbudget: {minibatches: 60000}\n"
        "hardware: {compute: {distribution: lognormal, cv: 0.4, step_s: 0.00123456789}}\n"
    )
    assert asgd_lab("run", "long.yaml", "--out", "long").status == 0
    compute = "hardware.compute={distribution: empirical, run: long}"
    said = asgd_lab("run", "long.yaml", "--set", compute, "--set", "budget.minibatches=2000", "--out", "next")
    assert said.status == 0, said
    assert asgd_lab("replay", "next").status == 0
