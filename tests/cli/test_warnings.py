"""What is allowed but hardly meant is said in a line, and kept; beside each kind a case that is meant and not told."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from .harness import asgd_lab

PLAIN = """\
name: plain
task: {name: quadratic, curvature: [1.0, 4.0]}
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {minibatches: 40}
backend: sim
hardware: {compute: {step_s: 0.01}}
"""
DIGITS = "task={name: classification, dataset: digits, batch_size: 8}"
REAL = "backend={name: process, device: emulated, checkpoint: {every_updates: %d}}"
# The key of the warning, what makes it, and what of the same kind is meant.
KINDS: list[tuple[str, list[str], list[str]]] = [
    ("algorithm", ["algorithm.n_sync=40"], ["algorithm.n_sync=20"]),
    ("workers", ["algorithm.n_sync=1", "workers=41"], ["algorithm.n_sync=1", "workers=40"]),
    ("budget.updates", ["budget={updates: 1}"], ["budget={updates: 2}"]),
    ("evaluate", ["evaluate={every_minibatches: 41}"], ["evaluate={every_minibatches: 40}"]),
    ("budget.target_error", [DIGITS, "budget.target_error=0.1"], [DIGITS, "budget.target_error=0.1",
                                                                  "budget.target_window=40"]),
    ("algorithm.bound", ["algorithm={name: ssp, n_sync: 2, bound: 20}"],
     ["algorithm={name: ssp, n_sync: 2, bound: 2}"]),
    ("backend.checkpoint", [REAL % 100], [REAL % 5]),
    ("backend.checkpoint", ["budget={seconds: 1.0}", "backend={name: process, device: emulated, "
                            "checkpoint: {every_s: 2.0}}"], ["budget={seconds: 1.0}", REAL % 5]),
    ("backend.digest_every_updates", ["backend={name: process, device: emulated, digest_every_updates: 100}"],
     ["backend={name: process, device: emulated, digest_every_updates: 5}"]),
    ("faults.schedule.0", ["budget={seconds: 1.0}", "faults={schedule: [{name: kill, worker: 0, at_s: 2.0}]}"],
     ["budget={seconds: 1.0}", "faults={schedule: [{name: kill, worker: 0, at_s: 0.5}]}"]),
    ("task.schedule.length", ["task.schedule={name: linear, length: 41}"],
     ["task.schedule={name: linear, length: 40}"]),
    ("task.schedule.every", ["task.schedule={name: step, every: 41}"], ["task.schedule={name: step, every: 4}"]),
    ("task.schedule.warmup", ["task.schedule={name: constant, warmup: 41}"],
     ["task.schedule={name: constant, warmup: 4}"]),
    ("warm_start.minibatches", ["warm_start={minibatches: 41}"], ["warm_start={minibatches: 4}"]),
    ("task.optimizer.lr", ["task.optimizer.lr=0"], ["task.optimizer.lr=0.01"]),
    ("hardware", ["backend=process"], ["backend={name: process, device: emulated}"]),
    ("hardware.speeds", ["hardware.speeds=[1, 2, 3]"], ["hardware.speeds=[1, 2]"]),
    ("faults.schedule.0.repair_s", ["faults={on_death: continue, schedule: [{name: kill, worker: 0, at_s: 0.01, "
                                    "repair_s: 1.0}]}"], ["faults={schedule: [{name: kill, worker: 0, at_s: 0.01, "
                                                          "repair_s: 1.0}]}"]),
    ("faults.schedule.0.factor", ["faults={schedule: [{name: slow, worker: 0, at_s: 0.0, until_s: 1.0, factor: 1}]}"],
     ["faults={schedule: [{name: slow, worker: 0, at_s: 0.0, until_s: 1.0, factor: 2}]}"]),
    ("task.biases", [DIGITS, "task.biases={lr: 1}"], [DIGITS, "task.biases={lr: 2}"]),
    ("task.clip.norm", [DIGITS, "task.clip={norm: 1.0e-30}"], [DIGITS, "task.clip={norm: 1.0}"]),
    ("task.clip.value", [DIGITS, "task.clip={value: 1.0e-20}"], [DIGITS, "task.clip={value: 1.0e-3}"]),
    ("task.data_folder", [DIGITS, "task.data_folder=/"], [DIGITS]),
    ("task.batch_norm", [DIGITS, "task.batch_norm=server"], [DIGITS, "task.batch_norm=local"]),
    ("task.batch_size", ["task.batch_size=4"], ["task.batch_size=4", "task.noise=1.0"]),
    ("task.optimizer.dampening", ["task.optimizer={name: SGD, dampening: 0.5}"],
     ["task.optimizer={name: SGD, dampening: 0.5, momentum: 0.5}"]),
    ("task.schedule.final", ["task.schedule={name: cosine, length: 40, final: 1}"],
     ["task.schedule={name: cosine, length: 40, final: 0.5}"]),
    ("task.schedule.factor", ["task.schedule={name: step, every: 4, factor: 1}"],
     ["task.schedule={name: constant, factor: 0.1}"]),
    ("task.schedule.clock", ["task.schedule={name: constant, clock: versions}"],
     ["task.schedule={name: constant, clock: steps}"]),
    ("task.schedule.warmup", ["task.schedule={name: constant, warmup: 1}"],
     ["task.schedule={name: constant, warmup: 2}"]),
    ("algorithm.momentum_at_fetch", ["algorithm.momentum_at_fetch=reset"],
     ["algorithm.momentum_at_fetch=reset", "task.optimizer={name: SGD, momentum: 0.5}"]),
    ("algorithm.rule.0.nesterov", ["algorithm.rule=[{name: momentum, beta: 0, nesterov: true}]"],
     ["algorithm.rule=[{name: momentum, beta: 0}]"]),
    ("budget.updates", ["budget.updates=100"], ["budget.updates=20"]),
    ("budget.target_window", ["budget.target_window=10"], ["budget.target_window=50"]),
    ("hardware", ["backend=inline"], []),
    ("hardware.link.shared", ["hardware.link={shared: true}"],
     ["hardware.link={shared: true, up_bytes_per_s: 1.0e+6}"]),
    ("hardware.server.distribution", ["hardware.server={distribution: exponential}"],
     ["hardware.server={distribution: exponential, push_s: 0.001}"]),
    ("hardware.device.vectors", ["hardware.device={vectors: 5}"],
     ["hardware.device={vectors: 5, memory_bytes: 100000}"]),
    ("hardware.host.workers", ["hardware.host={workers: 2}"], ["hardware.host={workers: 2, cores: 1}"]),
    ("faults.on_death", ["faults={on_death: continue}"], ["faults={on_death: restart}"]),
    ("faults.mean_time_to_repair_s",
     ["faults={mean_time_between_failures_s: 100, mean_time_to_repair_s: 1, on_death: stop}"],
     ["faults={mean_time_between_failures_s: 100, on_death: stop}"]),
    ("faults.schedule.1", ["faults={schedule: [{name: kill, worker: 0, at_s: 0.1}, {name: kill, worker: 0, "
                           "at_s: 0.1}]}"], ["faults={schedule: [{name: kill, worker: 0, at_s: 0.1}, {name: kill, "
                                             "worker: 1, at_s: 0.1}]}"]),
    ("faults.schedule.0", ["faults={on_death: continue, schedule: [{name: kill, worker: 0, at_s: 0.1}, {name: kill, "
                           "worker: 0, at_s: 0.05}]}"],
     ["faults={schedule: [{name: kill, worker: 0, at_s: 0.1}, {name: kill, worker: 0, at_s: 0.05}]}"]),
    ("sweep", ["sweep={task.start: [1, 1.0]}"], ["sweep={task.start: [1, 2]}"]),
]  # fmt: skip


def told(command: str, path: Path, changes: list[str], *more: str) -> list[str]:
    said = asgd_lab(command, path, *more, *(part for each in changes for part in ("--set", each)))
    assert said.status == 0, said
    return said.err.splitlines()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(PLAIN)
    return path


@pytest.mark.parametrize(
    ("key", "senseless", "meant"), KINDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_hardly_meant_is_told_and_what_is_meant_is_not(
    plain: Path, key: str, senseless: list[str], meant: list[str]
) -> None:
    (line,) = told("validate", plain, senseless)
    assert line.startswith(f"warning: {key}: ")
    assert told("validate", plain, meant) == []


def test_a_warning_is_said_once_and_kept_in_the_summary(plain: Path, tmp_path: Path) -> None:
    (line,) = told("run", plain, ["algorithm.n_sync=40"], "--out", str(tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [f"warning: {each}" for each in summary["warnings"]] == [line]


def test_a_file_system_without_locks_is_told(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    (line,) = told("run", plain, [], "--out", str(tmp_path / "out"))
    assert line.startswith(f"warning: --out: the file system of {tmp_path / 'out'} has no locks")
    (line,) = told("run", plain, ["sweep={seed: [1, 2]}"], "--jobs", "1", "--out", str(tmp_path / "sweep"))
    assert "has no locks" in line


@pytest.mark.parametrize("rate", [0.1, 1e5])
def test_training_that_diverges_does_not_end_in_plain_type(plain: Path, tmp_path: Path, rate: float) -> None:
    changes = [f"task.optimizer.lr={rate}", "budget.minibatches=400", "algorithm.rule=[add]"]
    lines = told("run", plain, changes, "--out", str(tmp_path / "out"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [f"warning: {each}" for each in summary["warnings"]] == lines
    assert [line.split(": ")[1] for line in lines] == (["task.optimizer"] if rate > 1 else [])


def test_a_fault_after_the_end_is_told_when_the_end_is_known(plain: Path, tmp_path: Path) -> None:
    late = ["faults={schedule: [{name: kill, worker: 0, at_s: 1000.0}]}"]
    (line,) = told("run", plain, late, "--out", str(tmp_path / "out"))
    assert line.startswith("warning: faults.schedule.0: never happens: it is due at 1000 s, and the end is ")


def test_a_value_that_a_sweep_replaces_must_be_one_too(plain: Path) -> None:
    plain.write_text(PLAIN.replace("workers: 2", "workers: many") + "sweep: {workers: [1, 2]}\n")
    said = asgd_lab("validate", plain)
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"{plain}:4: workers: must be a whole number")
