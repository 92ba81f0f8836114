"""Logs of runs while they go on: what they hold, on every backend, and that they never change or end a run."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

import asgd_lab
from asgd_lab import Interrupted
from asgd_lab.loggers import live
from asgd_lab.loggers.base import End, LoggedRun, Logger, Point
from asgd_lab.record import removal
from asgd_lab.record.run import mark
from asgd_lab.record.scalar_curves import Curves
from tests.backends.scenarios import QUADRATIC
from tests.cli.harness import QUADRATIC as BOWL
from tests.cli.harness import asgd_lab as program
from tests.figures.test_scalars import board, events

TWO: dict[str, Any] = {
    "name": "two",
    "task": QUADRATIC,
    "algorithm": {"name": "asgd", "n_sync": 2},
    "workers": 2,
    "budget": {"minibatches": 60},
    "backend": "sim",
    "evaluate": {"every_minibatches": 20, "parameters": ["server", "replicas"]},
    "hardware": {"compute": {"step_s": 0.01, "distribution": "lognormal", "cv": 0.5}},
}


class Kept(Logger):
    """A logger that keeps all in this process."""

    runs: ClassVar[list[Kept]] = []

    def begin(self, run: LoggedRun) -> None:
        self.run, self.points, self.final = run, list[Point](), dict[str, float]()
        self.status: End | None = None
        self.runs.append(self)

    def log(self, points: Sequence[Point]) -> None:
        self.points += points

    def end(self, status: End, final: Mapping[str, float]) -> None:
        self.status, self.final = status, dict(final)


class Thin(Kept):
    """The same with few points of a curve."""

    most_points = 10


class Failing(Kept):
    """A logger whose tool fails at the first points."""

    def log(self, points: Sequence[Point]) -> None:
        raise ConnectionError("no route to host\nat all")


class Leaving(Kept):
    """A logger whose tool tries to end the process."""

    def begin(self, run: LoggedRun) -> None:
        raise SystemExit(3)


class Hanging(Kept):
    """A logger that does not end."""

    def end(self, status: End, final: Mapping[str, float]) -> None:
        GATE.wait()


class Unfinished(Logger):
    """A class that lacks a method."""

    def begin(self, run: LoggedRun) -> None:
        pass

    def log(self, points: Sequence[Point]) -> None:
        pass


GATE = live.threading.Event()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    Kept.runs.clear()
    return tmp_path


def bits(run: asgd_lab.Run) -> tuple[Any, ...]:
    """The tables of a simulated run and its numbers."""
    summary = {name: value for name, value in run.summary.items() if name not in ("logs", "warnings")}
    return summary, *((run.path / f"{name}.parquet").read_bytes() for name in ("effects", "minibatches", "evals"))


def by_tag(points: Sequence[Point]) -> dict[str, list[tuple[int, float, float]]]:
    found = defaultdict(list)
    for tag, _, step, time_s, value in points:
        found[tag].append((step, time_s, value))
    return found


def test_a_log_has_the_curves_of_an_export_and_changes_no_bit_of_the_run(here: Path) -> None:
    plain = asgd_lab.run(TWO, out="plain")
    logged = asgd_lab.run(TWO, {"log": ["tensorboard", "tests.loggers.test_live_logs:Kept"]}, out="logged")
    assert bits(logged) == bits(plain)
    assert logged.warnings == plain.warnings
    (live_points,) = board(here / "logged").values()
    logged.tensorboard("board")
    (exported,) = board(here / "board").values()
    assert {tag: sorted(points) for tag, points in exported.items()} == {
        tag: sorted(points) for tag, points in live_points.items() if not tag.startswith(("final/", "_hparams_/"))
    }
    assert live_points["loss/mean"] == exported["loss/mean"]
    (kept,) = Kept.runs
    assert {*by_tag(kept.points)} == {*exported}
    assert {f"final/{name}": value for name, value in logged.summary["final"].items()}.items() <= kept.final.items()
    assert (kept.status, kept.run.hparams["workers"], kept.run.hparams["task.optimizer.lr"]) == ("done", 2, 0.1)
    assert logged.summary["logs"] == {"tensorboard": "tensorboard"}


def test_tensorboard_gets_the_values_of_the_scenario_and_the_final_numbers(here: Path) -> None:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    run = asgd_lab.run(TWO, {"log": ["tensorboard"]}, out="run")
    (path,) = (here / "run" / "tensorboard").iterdir()
    found = {}
    for event in events(path):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                found[value.tag.partition("/")[2]] = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    begun = found["session_start_info"].session_start_info.hparams
    assert (begun["workers"].number_value, begun["algorithm.name"].string_value) == (2.0, "asgd")
    columns = {each.name.tag for each in found["experiment"].experiment.metric_infos}
    assert {f"final/{name}" for name in (*run.summary["final"], "minibatches_per_s")} <= columns
    assert found["session_end_info"].session_end_info.status == 1


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_every_backend_tells_its_rows(backend: str, here: Path) -> None:
    evaluate = None if backend == "inline" else TWO["evaluate"]
    keys = {"backend": backend, "evaluate": evaluate, "log": ["tests.loggers.test_live_logs:Kept"]}
    run = asgd_lab.run(TWO, keys, out="run")
    (kept,) = Kept.runs
    counted = Counter(point.tag for point in kept.points)
    assert sum(counted[f"workers/loss/{worker}"] for worker in range(2)) == len(run.minibatches)
    assert counted["staleness"] == run.summary["updates"]
    assert len(run.minibatches) // 2 <= counted["loss/mean"] <= len(run.minibatches) // 2 + 1
    of_server = run.evals[run.evals["parameters"] == "server"]
    held_out = Counter(
        f"{split}_{metric}/server" for split, metric in zip(of_server["split"], of_server["metric"], strict=True)
    )
    assert {tag: counted[tag] for tag in held_out} == held_out
    assert held_out
    steps = [step for step, _, _ in by_tag(kept.points)["workers/loss/0"]]
    assert steps == sorted(steps)
    assert (kept.run.began_s > 1e9) == (backend == "process")
    assert run.replay().same_bits


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_points_come_while_the_run_goes_on(backend: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.05)

    def stop(progress: asgd_lab.Progress) -> None:
        if Kept.runs and any(point.tag == "loss/mean" for point in Kept.runs[0].points):
            raise KeyboardInterrupt

    seconds = 100_000 if backend == "sim" else 60
    keys = {
        "backend": backend, "evaluate": None, "budget": {"minibatches": 50_000_000, "seconds": seconds},
        "log": ["tests.loggers.test_live_logs:Kept"],
    }  # fmt: skip
    with pytest.raises(Interrupted):
        asgd_lab.run(TWO, keys, out="run", watch=stop)
    assert Kept.runs[0].status == "interrupted"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Failing",
            "stopped, and the run went on without it: ConnectionError: no route to host at all (test_live_logs.py:",
        ),
        ("Leaving", "stopped, and the run went on without it: SystemExit: 3 (test_live_logs.py:"),
        ("Hanging", "had not finished when the run's end was recorded"),
    ],
)
def test_a_logger_that_fails_is_one_warning_of_a_run_that_ends_as_without(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "END_S", 0.2)
    GATE.clear()
    bowl = {**TWO, "evaluate": None}
    plain = asgd_lab.run(bowl, out="plain")
    run = asgd_lab.run(bowl, {"log": [f"tests.loggers.test_live_logs:{name}"]}, out="run")
    GATE.set()
    assert bits(run) == bits(plain)
    assert run.status == "done"
    (line,) = (line for line in run.warnings if line.startswith("log: "))
    assert line.startswith(f"log: tests.loggers.test_live_logs:{name} {said}")


def test_rows_that_nobody_takes_are_dropped_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE_S", 0.05)
    monkeypatch.setattr(live, "MOST_WAITING", 3)
    log = live.LiveLog({"kept": Kept}, LoggedRun(Path(), "", "", None, {}, 0.0), workers=1, round_steps=1, virtual=True)
    log._work = GATE.wait  # type: ignore[method-assign]
    GATE.clear()
    log._thread = live.threading.Thread(target=GATE.wait, daemon=True)
    log.begin()
    log.hear("minibatches", [(0, step, step, 0.5, 0.5) for step in range(9)])
    log.hear("minibatches", [(0, 9, 9, 0.5, 0.5)])
    monkeypatch.setattr(live, "END_S", 0.05)
    _, told = log.end("done", {})
    GATE.set()
    assert told[0] == "log: the loggers took no rows for 0.05 s, and lack all later ones"
    assert len(log._rows) == 9


def test_a_long_curve_becomes_means_of_its_points() -> None:
    bowl = {**TWO, "evaluate": None, "budget": {"minibatches": 400}}
    asgd_lab.run(bowl, {"log": ["tests.loggers.test_live_logs:Kept", "tests.loggers.test_live_logs:Thin"]}, out="run")
    thin, whole = sorted((by_tag(kept.points)["workers/loss/0"] for kept in Kept.runs), key=len)
    assert 10 <= len(thin) <= 60 < len(whole)
    assert thin[0] == whole[0]
    assert thin[-1][:2] == whole[-1][:2]


def test_a_dead_worker_does_not_hold_up_the_mean() -> None:
    curves = Curves(3, most_waiting=6)
    for step in range(2):
        assert not [
            p for worker in range(2) for p in curves.minibatch(worker, step, float(step), 1.0, 0.0) if "mean" in p.tag
        ]
    points = [p for step in range(2, 9) for p in curves.minibatch(step % 2, step, float(step), 1.0, 0.0)]
    assert [point.value for point in points if point.tag == "loss/mean"] == [1.0]


def test_a_run_of_a_sweep_has_its_name_and_the_sweeps(here: Path) -> None:
    (here / "bowl.yaml").write_text(BOWL + "sweep: {workers: [1, 2]}\nlog: [tensorboard]\n")
    keys = {"log": ["tensorboard", "tests.loggers.test_live_logs:Kept"]}
    asgd_lab.sweep("bowl.yaml", keys, out="all", jobs=1)
    assert [(kept.run.name, kept.run.group) for kept in Kept.runs] == [("workers=1", "bowl"), ("workers=2", "bowl")]
    assert {*board(here / "all")} == {"workers=1/tensorboard", "workers=2/tensorboard"}


def test_a_resumed_run_begins_its_log_anew_and_removes_nothing_of_others(here: Path) -> None:
    (here / "bowl.yaml").write_text(BOWL + "log: [tensorboard]\n")
    assert program("run", "bowl.yaml", "--out", "run").status == 0
    folder = here / "run" / "tensorboard"
    (mine,) = folder.iterdir()
    earlier = folder / "events.out.tfevents.0000000007.asgd-lab"
    mine.rename(earlier)
    theirs = folder / "events.out.tfevents.0000000007.host"
    theirs.write_bytes(b"theirs")
    mark(here / "run", "interrupted")
    assert program("run", "bowl.yaml", "--out", "run", "--resume").status == 0
    assert not earlier.exists()
    assert theirs.read_bytes() == b"theirs"
    assert len([*folder.iterdir()]) == 2
    theirs.unlink()
    removal.clear(here / "run")
    assert not folder.exists()


def test_the_loggers_of_a_run_may_change_when_it_resumes(here: Path) -> None:
    (here / "bowl.yaml").write_text(BOWL)
    assert program("run", "bowl.yaml", "--out", "run").status == 0
    said = program("run", "bowl.yaml", "--out", "run", "--resume", "--set", "log=[tensorboard]")
    assert (said.status, said.err) == (0, "")
    assert "is done already" in said.out


@pytest.mark.parametrize(
    ("log", "key", "what"),
    [
        ("[nothing]", "log.0", "must be 'tensorboard', 'wandb' or 'mlflow'"),
        ("[tensorboard, tensorboard]", "log.1", "is tensorboard a second time; remove it"),
        ("tensorboard", "log", "must be a list"),
    ],
)
def test_a_wrong_log_is_one_line(here: Path, log: str, key: str, what: str) -> None:
    (here / "bowl.yaml").write_text(BOWL + f"log: {log}\n")
    said = program("validate", "bowl.yaml")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert said.err.startswith("bowl.yaml:9: ")
    assert key in said.err
    assert what in said.err


def test_a_class_without_the_methods_is_one_line(here: Path) -> None:
    (here / "bowl.yaml").write_text(BOWL + "log: ['tests.loggers.test_live_logs:Unfinished']\n")
    said = program("validate", "bowl.yaml", "--trust")
    assert said.status == 2
    assert said.err == "bowl.yaml:9: log.0: tests.loggers.test_live_logs:Unfinished must define end\n"


@pytest.mark.parametrize(
    ("name", "module", "packages"),
    [
        ("tensorboard", "tensorboardX", "the package tensorboardX: pip install tensorboardX"),
        ("wandb", "wandb", "the package wandb: pip install wandb"),
        (
            "mlflow", "sqlalchemy",
            "the packages mlflow-skinny sqlalchemy alembic: pip install mlflow-skinny sqlalchemy alembic",
        ),
    ],
)  # fmt: skip
def test_a_logger_that_is_not_installed_is_one_line_with_the_command(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, packages: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (here / "bowl.yaml").write_text(BOWL + f"log: [{name}]\n")
    for command in (("validate", "bowl.yaml"), ("run", "bowl.yaml", "--out", "run")):
        said = program(*command)
        assert (said.status, said.err) == (2, f"bowl.yaml:9: log.0: {name} needs {packages}\n")
    assert not (here / "run").exists()


def test_a_check_of_a_scenario_imports_no_logger(here: Path) -> None:
    timing = "name: t\ntask: {name: timing, size_bytes: 10, step_s: 0.1}\nalgorithm: {name: asgd, n_sync: 1}\n"
    (here / "t.yaml").write_text(timing + "budget: {minibatches: 4}\nbackend: sim\nlog: [tensorboard, wandb, mlflow]\n")
    code = (
        "import sys, asgd_lab; asgd_lab.validate('t.yaml');"
        "print({'tensorboardX', 'wandb', 'mlflow', 'sqlalchemy', 'torch'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
