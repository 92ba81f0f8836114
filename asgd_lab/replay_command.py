"""The command `replay` and its messages: whether a run repeats to the bit, and if not, the first difference."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asgd_lab import display, progress_display
from asgd_lab.backends import devices
from asgd_lab.backends.inputs import changes, inputs, untrusted
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.backends.verification import Contradiction, check_gpus, real_run, sealed, simulated_run, summary_of
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record import machine
from asgd_lab.record.run import read_summary
from asgd_lab.recorded_code import as_recorded
from asgd_lab.scenario import Document, Scenario, anchored, values_sha256


def replay(run_dir: Path) -> None:
    """Repeat the run in `run_dir`; RunFailed if any bit differs, ScenarioError if it cannot be repeated."""
    console = display.console()
    with as_recorded(run_dir, lambda line: display.say(console, line)) as (there, manifest):
        _replay(there, manifest, manifest.get("inputs") or {})


def _replay(run_dir: Path, manifest: dict[str, Any], recorded: Mapping[str, Any]) -> None:
    (point,) = Document.read(str(run_dir / "scenario.yaml")).points()
    console = display.console()
    scenario = anchored(point.scenario)
    if not untrusted(scenario):  # else the next steps refuse the run
        for line in changes(recorded, inputs(scenario)):
            raise ScenarioError(f"{run_dir}: {line}; put it back to repeat the run")
    verify = _real if scenario.backend.execution.logged else _simulated
    try:
        if "scenario_sha256" in manifest and manifest["scenario_sha256"] != _stated(run_dir):
            raise Contradiction("scenario.yaml: states other values than the scenario that was run")
        said, left = verify(run_dir, scenario)
        left += sealed(run_dir)
    except Contradiction as error:
        raise RunFailed(f"{run_dir}: {error}; {_elsewhere(run_dir, manifest, scenario)}") from error
    display.say(console, f"{run_dir}: {said}" + "".join(f"; {line}" for line in left))


def _stated(run_dir: Path) -> str:
    return values_sha256((run_dir / "scenario.yaml").read_text(encoding="utf-8"))


def _real(run_dir: Path, scenario: Scenario) -> tuple[str, list[str]]:
    """Repeat a real run from its event log and check its files; return the verdict and values not compared."""
    console = display.console()
    with progress_display.bars(console, live=display.is_live(console)) as shown:
        bar = shown.add_task("events", total=None)
        verdict = repeat(scenario, run_dir, lambda done, total: shown.update(bar, completed=done, total=total))
    if verdict.difference is not None:
        raise Contradiction(verdict.difference)
    left = real_run(run_dir, scenario, verdict.made, verdict.versions, verdict.params, verdict.final, verdict.task)
    final = "the final parameters are the same bits" if verdict.final else "there are no final parameters to compare"
    return (
        f"{verdict.events} events, {verdict.versions} versions: {verdict.pushes} pushes and "
        f"{verdict.digests} hashes on the way are the recorded ones; {final}"
    ), left


def _simulated(run_dir: Path, scenario: Scenario) -> tuple[str, list[str]]:
    """Simulate the run again, a function of its scenario, and compare all its files."""
    check_gpus(scenario, run_dir)
    status = read_summary(run_dir).get("status")
    if status != "done":
        raise ScenarioError(
            f"{run_dir}: is {status}: a simulation that has not come to its end is not repeated; run it again"
        )
    with tempfile.TemporaryDirectory() as folder:
        execute(scenario, Path(folder) / "run")
        left = simulated_run(run_dir, Path(folder) / "run")
    return "the same final parameters, bit for bit, and the same summary and tables", left


def _elsewhere(run_dir: Path, manifest: dict[str, Any], scenario: Scenario) -> str:
    """The differences between the recording machine and this one."""
    here = {**machine.versions(), **machine.arithmetic(), **_gpus(devices.facts(scenario))}
    there = {**manifest.get("versions", {}), **manifest.get("arithmetic", {}), **_gpus(summary_of(run_dir))}
    found = [
        f"{name} {there.get(name)} there, {value} here" for name, value in here.items() if there.get(name) != value
    ]
    return f"recorded elsewhere: {', '.join(found)}" if found else "versions and processor are those of the record"


def _gpus(told: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a summary that decide the bits on GPUs; {} without GPUs."""
    gpus = told.get("gpus", {})
    return {"GPU": " and ".join(sorted(set(gpus["names"]))), "CUDA": gpus.get("cuda")} if "names" in gpus else {}
