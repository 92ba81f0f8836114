"""What a command that comes back to a directory finds there of the run that it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from asgd_lab.errors import ScenarioError
from asgd_lab.record.standing import standing
from asgd_lab.scenario import Document, Scenario, anchored, first_difference


def how_far(path: Path, scenario: Scenario) -> Literal["nothing", "unfinished", "done"]:
    """How far this scenario's run at `path` has come; ScenarioError if anything else is there. Nothing is changed.

    The recorded scenario is read as any other, so that neither its form nor defaults which are newer than it matter.
    """
    state = standing(path)
    if state == "nothing":
        return state
    file = path / "scenario.yaml"
    if state == "claimed" and not file.stat().st_size:
        return "unfinished"
    recorded = anchored(Document.read(file).scenario())
    difference = first_difference(recorded, scenario)
    if difference is not None:
        key, there, here = difference
        raise ScenarioError(
            f"--resume: {path} holds a run of another scenario: {key} is {there} there and {here} here; "
            "choose another --out"
        )
    return "done" if state == "done" else "unfinished"
