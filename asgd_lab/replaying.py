"""What `replay` tells a person: whether a run is repeated to the bit, and if not, what differs where."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from asgd_lab import display, tasks
from asgd_lab.backends.inputs import changes, inputs
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record import machine, sources
from asgd_lab.record.provenance import recorded_here
from asgd_lab.record.run import read_manifest, read_summary
from asgd_lab.scenario import Document, Scenario, anchored
from asgd_lab.trust import is_trusted, trusting


def replay(run_dir: Path) -> None:
    """Repeat the run in `run_dir`; RunFailed if any bit of it comes out otherwise, ScenarioError if it cannot be.

    Code that the user's own record names is imported from where it was found then, whatever the current directory is.
    """
    manifest = read_manifest(run_dir)
    recorded = manifest.get("inputs") or {}
    with trusting(is_trusted() or recorded_here(run_dir)), contextlib.ExitStack() as stack:
        run_dir = Path(os.path.abspath(run_dir)) if recorded.get("code") else run_dir
        if is_trusted() and recorded.get("code"):
            stack.enter_context(_as_there(recorded))
        try:
            _replay(run_dir, manifest, recorded)
        finally:
            for line in sources.changed(recorded.get("code", {})):
                display.say(display.console(), f"{run_dir}: {line}")


@contextlib.contextmanager
def _as_there(recorded: Mapping[str, Any]) -> Iterator[None]:
    """Import as it was done there: options of the user's code may be paths that start at the recorded folder."""
    path, here = list(sys.path), os.getcwd()
    sys.path[:] = [*sources.roots(recorded["code"]), *path, *([] if here in path else [here])]
    try:
        with contextlib.suppress(OSError):
            os.chdir(recorded["folder"])
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path


def _replay(run_dir: Path, manifest: dict[str, Any], recorded: Mapping[str, Any]) -> None:
    (point,) = Document.read(str(run_dir / "scenario.yaml")).points()
    console = display.console()
    scenario = anchored(point.scenario)
    if not tasks.untrusted(scenario.task):  # else what comes next refuses it
        for line in changes(recorded, inputs(scenario)):
            raise ScenarioError(f"{run_dir}: {line}; put it back to repeat the run")
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
