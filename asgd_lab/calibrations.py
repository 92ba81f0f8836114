"""Calibrations as objects: what one worker's run costs on this machine, as hardware for simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgd_lab import arguments, new_scenarios, prediction
from asgd_lab.errors import Interrupted, RunFailed, ScenarioError
from asgd_lab.record.directory_locks import check_empty, made_and_locked
from asgd_lab.record.directory_names import default_directory
from asgd_lab.record.removal import remove_if_empty
from asgd_lab.request import AnyScenario, Changes, Request
from asgd_lab.runs import pairs_html
from asgd_lab.scenario import Document, Scenario
from asgd_lab.scenario.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Calibration:
    """The measured costs of one worker on this machine: `path` has its two runs."""

    path: Path
    scenario: Scenario
    """The simulation of the measured scenario with these costs: timing alone, with the sweep if there is one."""
    step_s: float
    """The mean seconds of a minibatch; of an emulated device, the stated ones."""
    size_bytes: int
    """Bytes that one push or one fetch moves."""

    @property
    def hardware(self) -> dict[str, Any]:
        """The costs as values of a scenario's `hardware`: times of minibatches, client, server and link, in seconds."""
        plain = Hardware().model_dump()
        return {key: value for key, value in self.scenario.hardware.model_dump().items() if value != plain[key]}

    def save(self, file: arguments.AnyPath) -> Path:
        """Write `scenario` to a new YAML file, which `asgd_lab.run` and `asgd_lab.sweep` simulate."""
        path = arguments.path("file", file)
        check_new(path)
        new_scenarios.write({path: Document.dump(self.scenario)})
        return path

    def __repr__(self) -> str:
        return f"<Calibration {self.path}: {self.step_s * 1e3:.3f} ms a minibatch>"

    def _repr_html_(self) -> str:
        server, client = self.scenario.hardware.server, self.scenario.hardware.client
        seconds = {
            "minibatch": self.step_s,
            "a push at the server": server.push_s,
            "a fetch at the server": server.fetch_s,
            "a push at the worker": client.push_s,
            "a fetch at the worker": client.fetch_s,
            "one way": self.scenario.hardware.link.latency_s,
        }
        return pairs_html([("runs", str(self.path)), *((name, f"{s * 1e3:.3f} ms") for name, s in seconds.items())])


def check_new(file: Path) -> None:
    """A `ScenarioError` if no scenario can be written there: the file exists, or has another ending."""
    new_scenarios.check_ending(file)
    new_scenarios.check_absent(file)


def calibrate(
    scenario: AnyScenario,
    changes: Changes | None = None,
    *,
    out: arguments.AnyPath | None = None,
    say: Callable[[str], None] | None = None,
) -> Calibration:
    """Measure one worker of a scenario with real processes for a few seconds, and fit the costs of this machine.

    The points of a sweep must have one task and one device; the shortest and the longest of their rounds are measured.
    `out` is a new or empty directory for the two runs; without it, a new one below runs/. `say` is called with a line
    of the costs. A simulation with them is `asgd_lab.run(calibration.scenario)`, or, with the scenario's own task,
    `asgd_lab.run(scenario, {"backend": "sim", "hardware": calibration.hardware})`.
    """
    with arguments.named_as_in_python():
        arguments.function("say", say)
        path = None if out is None else arguments.path("out", out)
        return calibrated(Request.of(scenario, changes), path, say or (lambda line: None))


def calibrated(request: Request, out: Path | None, say: Callable[[str], None]) -> Calibration:
    """As `calibrate`; errors name options of the command line."""
    prediction.check([request.document], request.overrides, "calibrate")
    if len({_costs_of(point.scenario) for point in request.points}) > 1:
        message = "has points that need calibrations of their own: task, hardware or backend differ; choose one"
        raise request.document.located(ScenarioError.at("sweep", message), request.overrides)
    request.check()
    folder = out or default_directory("calibrate")
    with made_and_locked(folder, "--out") as made:
        check_empty(folder, "--out")
        try:
            found = prediction.calibrate([point.scenario for point in request.points], folder, say)
        except KeyboardInterrupt:
            raise Interrupted(f"what was recorded is in {folder}", run_dir=folder) from None
        except RunFailed as error:
            raise RunFailed(*error.args, run_dir=folder) from error
        finally:
            if made or out is None:
                remove_if_empty(folder)
    whole = request.document.scenario(request.overrides)
    return Calibration(folder.absolute(), prediction.predicted(whole, found), found.step_s, found.size_bytes)


def _costs_of(scenario: Scenario) -> tuple[str, int]:
    """A key of all that the costs depend on, and how many workers share a device."""
    return prediction.machine_of(scenario), prediction.sharing(scenario)
