"""The progress of a run in its directory, for commands that resume it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from asgd_lab import live_objects
from asgd_lab.backends import earlier, event_log
from asgd_lab.backends.inputs import changes, inputs, moved
from asgd_lab.errors import ScenarioError
from asgd_lab.record import checkpoints, code_sources
from asgd_lab.record.existing import existing_run
from asgd_lab.record.run import read_manifest
from asgd_lab.scenario import Document, Scenario, anchored, first_difference


def how_far(path: Path, scenario: Scenario) -> Literal["nothing", "unfinished", "done"]:
    """The progress of this scenario's run at `path`; ScenarioError if anything else is there. Nothing is changed.

    The recorded scenario is read like any other, so its layout and defaults newer than it do not matter.
    """
    state = existing_run(path)
    if state == "nothing":
        return state
    file = path / "scenario.yaml"
    if state == "claimed" and not file.stat().st_size:
        return "unfinished"
    recorded = anchored(Document.read(file).scenario())
    manifest = read_manifest(path) if state != "claimed" else {}
    there, here = earlier.inputs_of(manifest), inputs(scenario)
    difference = first_difference(recorded, scenario, ("figure", "report", "log", *moved(there, here)))
    if difference is not None:
        raise ScenarioError(
            f"--resume: {path} holds a run of another scenario: {difference.key} is {difference.one} there and "
            f"{difference.other} here; choose another --out"
        )
    if state != "done" and checkpoints.all_of(path):
        earlier.check(path, manifest, scenario)
    if state == "done" or checkpoints.all_of(path):  # else the run is restarted, with its present inputs
        code = there.get("code", {})
        for line in [*changes(there, here), *code_sources.changed(code), *live_objects.changed(code)]:
            raise ScenarioError(f"--resume: {path}: {line}; put it back, or choose another --out")
    if state != "done" and checkpoints.all_of(path) and event_log.is_version_1(path / event_log.FILE):
        what = "is of version 1 of the log's format, which can be replayed and not continued"
        raise ScenarioError(f"--resume: {path / event_log.FILE}: {what}; choose another --out")
    return "done" if state == "done" else "unfinished"
