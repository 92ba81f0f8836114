"""What `replay` tells a person: whether a run is repeated to the bit, and if not, what differs where."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from asgd_lab import display
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed
from asgd_lab.record import machine
from asgd_lab.record.run import read_manifest, read_summary
from asgd_lab.scenario import Document, Scenario


def replay(run_dir: Path) -> None:
    """Repeat the run in `run_dir`; RunFailed if any bit of it comes out otherwise, ScenarioError if it cannot be."""
    manifest = read_manifest(run_dir)
    (point,) = Document.read(str(run_dir / "scenario.yaml")).points()
    console = display.console()
    scenario = point.scenario
    if scenario.backend.name == "process":
        with display.bars(console, live=display.is_live(console)) as shown:
            bar = shown.add_task("events", total=None)
            verdict = repeat(scenario, run_dir, lambda done, total: shown.update(bar, completed=done, total=total))
        if verdict.difference is not None:
            raise RunFailed(f"{run_dir}: {verdict.difference}; {_elsewhere(manifest)}")
        final = (
            "the final parameters are the same bits" if verdict.final else "there are no final parameters to compare"
        )
        display.say(
            console,
            f"{run_dir}: {verdict.events} events, {verdict.versions} versions: {verdict.pushes} pushes and "
            f"{verdict.digests} hashes on the way are the recorded ones; {final}",
        )
    else:
        _again(run_dir, scenario, manifest)
        display.say(console, f"{run_dir}: the same final parameters, bit for bit")


def _again(run_dir: Path, scenario: Scenario, manifest: dict[str, Any]) -> None:
    """A simulated run is a function of its scenario."""
    recorded = read_summary(run_dir)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        summary = execute(scenario, Path(folder) / "run")
    for name in ("updates", "minibatches", "makespan_s", "params_sha256"):
        if summary[name] != recorded[name]:
            what = f"{name} is {summary[name]} here and {recorded[name]} in the record"
            raise RunFailed(f"{run_dir}: {what}; {_elsewhere(manifest)}")


def _elsewhere(manifest: dict[str, Any]) -> str:
    """What differs between where it was recorded and here."""
    here = {**machine.versions(), **machine.arithmetic()}
    there = {**manifest.get("versions", {}), **manifest.get("arithmetic", {})}
    found = [
        f"{name} {there.get(name)} there, {value} here" for name, value in here.items() if there.get(name) != value
    ]
    return f"recorded elsewhere: {', '.join(found)}" if found else "versions and processor are those of the record"
