"""Replays of recorded runs: whether a run repeats to the bit, and if not, the first difference."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgd_lab.backends import devices, earlier
from asgd_lab.backends.inputs import changes, inputs, untrusted
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.backends.verification import Contradiction, check_gpus, real_run, sealed, simulated_run, summary_of
from asgd_lab.errors import ScenarioError
from asgd_lab.record import machine
from asgd_lab.record.run import read_summary
from asgd_lab.recorded_code import as_recorded
from asgd_lab.scenario import Document, Scenario, anchored, values_sha256

Watch = Callable[[int, int], None]
"""Called with the number of events that are done, and of all."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay; `differences` is empty if `same_bits`.

    `compared` says what was compared; `not_compared` has a line for each value that no replay can repeat, and `notes`
    one for each source file that has changed since.
    """

    run_dir: Path
    same_bits: bool
    compared: str = ""
    differences: Sequence[str] = ()
    not_compared: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        compared = [self.compared] if self.same_bits else []
        return f"{self.run_dir}: {'; '.join([*compared, *self.not_compared, *self.differences])}"

    def _repr_html_(self) -> str:
        verdict = "the same bits" if self.same_bits else "a difference"
        lines = [self.compared, *self.differences, *self.not_compared, *self.notes]
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines if line)
        return f"<p>Replay of <code>{html.escape(str(self.run_dir))}</code>: <b>{verdict}</b></p><ul>{items}</ul>"


def replay(
    run_dir: str | os.PathLike[str], watch: Watch | None = None, say: Callable[[str], None] | None = None
) -> Replay:
    """Repeat the run in `run_dir`, in one process and in its recorded order; ScenarioError if it cannot be repeated.

    `say` is called with each of the `notes`, also before such an error.
    """
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        if say is not None:
            say(line)

    with as_recorded(Path(run_dir), note) as (there, manifest):
        found = _replay(there, manifest, earlier.inputs_of(manifest), watch or (lambda done, total: None))
    compared, left, difference = found
    differences = [] if difference is None else [difference]
    return Replay(there, not differences, compared, differences, left, notes)


def _replay(
    run_dir: Path, manifest: dict[str, Any], recorded: Mapping[str, Any], watch: Watch
) -> tuple[str, list[str], str | None]:
    scenario = recorded_scenario(run_dir, manifest, recorded)
    verify = _real if scenario.backend.execution.logged else _simulated
    try:
        if "scenario_sha256" in manifest and manifest["scenario_sha256"] != _stated(run_dir):
            raise Contradiction("scenario.yaml: states other values than the scenario that was run")
        said, left = verify(run_dir, scenario, watch)
        left += [*sealed(run_dir), *earlier.not_compared(manifest)]
    except Contradiction as error:
        return "", [], f"{error}; {_elsewhere(run_dir, manifest, scenario)}"
    return said, left, None


def recorded_scenario(run_dir: Path, manifest: dict[str, Any], recorded: Mapping[str, Any]) -> Scenario:
    """The scenario of a run, to be repeated; a `ScenarioError` if it meant another run, or if an input has changed."""
    (point,) = Document.read(str(run_dir / "scenario.yaml")).points()
    scenario = anchored(point.scenario)
    earlier.check(run_dir, manifest, scenario)
    if not untrusted(scenario):  # else the next steps refuse the run
        for line in changes(recorded, inputs(scenario, again=True)):
            raise ScenarioError(f"{run_dir}: {line}; put it back to repeat the run")
    return scenario


def _stated(run_dir: Path) -> str:
    return values_sha256((run_dir / "scenario.yaml").read_text(encoding="utf-8"))


def _real(run_dir: Path, scenario: Scenario, watch: Watch) -> tuple[str, list[str]]:
    """Repeat a real run from its event log and check its files; return the verdict and values not compared."""
    verdict = repeat(scenario, run_dir, watch)
    if verdict.difference is not None:
        raise Contradiction(verdict.difference)
    left = real_run(run_dir, scenario, verdict.made, verdict.versions, verdict.params, verdict.final, verdict.task)
    final = "the final parameters are the same bits" if verdict.final else "there are no final parameters to compare"
    return (f"repeated {verdict.pushes} pushes and {verdict.digests} hashes on the way, as recorded; {final}"), left


def _simulated(run_dir: Path, scenario: Scenario, watch: Watch) -> tuple[str, list[str]]:
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
