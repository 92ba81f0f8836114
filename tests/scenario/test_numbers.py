"""Every key of a scenario that takes a number x extreme numbers: a line, or a run; never a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.scenario import places
from asgd_lab.scenario.keys import dotted
from asgd_lab.scenario.places import Place
from tests.cli.harness import asgd_lab
from tests.whole import sample

EXTREMES = (
    "0", "-1", "1", "-0.0", "1e308", "-1e308", "5e-324", "1e-300", ".inf", ".nan", str(10**30), str(-(10**30)),
    str(2**31), str(2**63 - 1), str(2**64), "1e18", "true", "null", "'1'",
)  # fmt: skip
TIMING = """\
name: t
task: {name: timing, size_bytes: 4000, step_s: 0.01}
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {minibatches: 12}
backend: sim
"""
LEARNS = TIMING.replace("{name: timing, size_bytes: 4000, step_s: 0.01}", "{name: TASK}") + (
    "hardware: {compute: {step_s: 0.01}}\n"
)
QUADRATIC = LEARNS.replace("TASK", "quadratic, curvature: [1.0, 4.0]")
DIGITS = LEARNS.replace("TASK", "classification, dataset: digits, batch_size: 8")
KILL = "faults={schedule: [{name: kill, worker: 0, at_s: 0.01}]}"
# What stands beside a key, so that it has a meaning; of several prefixes the longest.
BESIDE: dict[str, tuple[str, ...]] = {
    "algorithm.bound": ("algorithm.name=ssp",),
    "algorithm.depth": ("algorithm.name=downpour",),
    "algorithm.n_fetch": ("algorithm={name: asgd, n_push: 2, n_fetch: 2}",),
    "algorithm.n_push": ("algorithm={name: asgd, n_push: 2, n_fetch: 2}",),
    "algorithm.rule.0.beta": ("algorithm.rule=[{name: momentum, beta: 0.5}]",),
    "algorithm.rule.0.eps": ("algorithm.rule=[{name: adagrad, lr: 0.1}]", "algorithm.push=gradient"),
    "algorithm.rule.0.factor": ("algorithm.rule=[{name: scale}]",),
    "algorithm.rule.0.lr": ("algorithm.rule=[{name: sgd, lr: 0.1}]", "algorithm.push=gradient"),
    "algorithm.rule.0.rho": ("algorithm.rule=[{name: adadelta}]", "algorithm.push=gradient"),
    "backend.checkpoint": ("backend={name: process, device: emulated}",),
    "backend.digest": ("backend={name: process, device: emulated}",),
    "evaluate": ("evaluate={}",),
    "faults.mean": ("faults={mean_time_between_failures_s: 1.0, mean_time_to_repair_s: 1.0}",),
    "faults.schedule.0": (KILL,),
    "faults.schedule.0.factor": ("faults={schedule: [{name: slow, worker: 0, at_s: 0.0, until_s: 1.0, factor: 2.0}]}",),
    "faults.schedule.0.for_s": ("faults={schedule: [{name: server_down, at_s: 0.01, for_s: 0.01}]}",),
    "faults.schedule.0.until_s": ("faults={schedule: [{name: stop, worker: 0, at_s: 0.0, until_s: 1.0}]}",),
    "hardware.compute.cv": ("hardware.compute.distribution=lognormal",),
    "hardware.compute.samples_s": ("hardware.compute={distribution: empirical, samples_s: [0.1]}",),
    "hardware.device": ("hardware.host={workers: 2}",),
    "hardware.groups": ("hardware.groups=[{name: a}]",),
    "hardware.host.cores": ("hardware.host={workers: 2, cores: 1}",),
    "hardware.link.flow": ("hardware.link.shared=true",),
    "hardware.links": ("hardware.groups=[{name: a}]", "hardware.links=[{group: a}]", "hardware.server.count=2"),
    "hardware.slow_phases": ("hardware.slow_phases={every_s: 1.0, length_s: 1.0, factor: 2.0}",),
    "task.biases": ("task.biases={lr: 1.0}",),
    "task.model_options": ("task.model_options={hidden: [4]}",),
    "task.schedule": ("task.schedule={name: linear, length: 5}",),
    "task.schedule.every": ("task.schedule={name: step, every: 5}",),
}
FREE = ("task.optimizer.lr", "task.optimizer.momentum", "task.optimizer.weight_decay", "task.model_options.hidden.0")


def numbers(place: Place, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """The dotted keys, here and below, where a number may stand."""
    if any(one.get("type") in ("integer", "number") for one in place.options):
        yield dotted(path)
    for part in (*place.keys, 0):
        if (inner := place.step(part)) is not None and len(path) < 6:
            yield from numbers(inner, (*path, part))


def base_of(key: str) -> str:
    """A scenario in which the key has a meaning."""
    if key in ("task.size_bytes", "task.step_s"):
        return TIMING
    is_classified = key in ("task.train_samples", "task.scale") or key.startswith(
        ("task.data.", "task.biases", "task.model")
    )
    if is_classified or key == "budget.target_error":
        return DIGITS
    return QUADRATIC if key.split(".")[0] in ("task", "algorithm", "budget", "evaluate", "warm_start") else TIMING


KEYS = sorted({*numbers(places.root()), *FREE})
CASES = [(key, extreme) for key in KEYS for extreme in EXTREMES]


def test_the_schema_has_all_the_numbers_that_it_had() -> None:
    assert len(KEYS) >= 90
    assert {"seed", "workers", "hardware.links.0.servers.0", "faults.schedule.0.at_s", "task.biases.lr"} <= set(KEYS)


@pytest.fixture
def hurried() -> Iterator[None]:
    """A run that has more to do than a test can wait for is interrupted, as by Ctrl-C."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(6)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("key", "extreme"), sample(CASES, 150))
def test_an_extreme_number_is_a_line_or_a_run(tmp_path: Path, key: str, extreme: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(base_of(key))
    beside = BESIDE.get(max((each for each in BESIDE if key.startswith(each)), key=len, default=""), ())
    assignments = [part for each in (*beside, f"{key}={extreme}") for part in ("--set", each)]
    said = asgd_lab("validate", path, *assignments)
    assert said.status in (0, 2), said
    if said.status == 0 and "backend={" not in "".join(beside):
        said = asgd_lab("run", path, "--out", tmp_path / "out", *assignments)
        assert said.status in (0, 1, 2, 130), said
    assert all(len(line) <= 1000 for line in said.err.splitlines())


def test_simulations_that_have_no_room_are_refused_with_the_sum(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(DIGITS)
    large = ["--set", "task.model_options.hidden=[1000]", "--set", "workers=100000"]
    for backend in ("sim", "inline"):
        said = asgd_lab("validate", path, *large, "--set", f"backend={backend}")
        assert said.status == 2
        assert said.err.startswith("--set workers: 100,000 workers with 75,")
        assert "GB are free; use fewer" in said.err
    said = asgd_lab("run", path, "--set", "hardware.server.count=9999", "--out", tmp_path / "out")
    assert said.status == 2
    assert "hardware.server.count: must be at most the 9,610 parameters" in said.err
    assert not (tmp_path / "out").exists()
