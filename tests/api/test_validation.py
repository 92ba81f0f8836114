"""`asgd_lab.validate`, and the check of timing alone, which needs no torch and finds what the whole check finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import asgd_lab
from asgd_lab.backends import timing_checks
from asgd_lab.request import Request
from asgd_lab.scenario import Document, carried
from tests.api.scenarios import BOWL, DIGITS
from tests.tasks.own_classes import Plain

TIMING: dict[str, Any] = {
    "name": "timing",
    "task": {"name": "timing", "size_bytes": 1000, "step_s": 0.01},
    "algorithm": {"name": "asgd", "n_sync": 2},
    "workers": 4,
    "budget": {"minibatches": 40},
    "backend": "sim",
}
EMULATED = {"name": "process", "device": "emulated"}


def test_a_valid_scenario_is_told_with_its_points_and_its_warnings(tmp_path: Path) -> None:
    found = asgd_lab.validate(DIGITS, {"sweep": {"workers": [1, 30]}})
    assert str(found) == "scenario: valid; 2 runs"
    assert found.names == ["workers=1", "workers=30"]
    assert len(found.warnings) == 1
    assert found.unchecked == []
    path = tmp_path / "bowl.yaml"
    path.write_text(Document.dump(asgd_lab.Scenario.model_validate(BOWL)))
    for given in (path, str(path)):
        assert str(asgd_lab.validate(given)) == f"{path}: valid; 1 run"
    assert str(asgd_lab.validate("how-stale")).startswith("how-stale: valid; ")
    assert list(tmp_path.iterdir()) == [path]


def test_code_that_is_not_trusted_is_left_out_and_told() -> None:
    strange = {**DIGITS, "task": {**DIGITS["task"], "model": "strange.module:net"}}
    with asgd_lab.trusting(False):
        found = asgd_lab.validate(strange)
    assert found.unchecked == [("task.model", "strange.module:net")]
    assert str(found) == "scenario: valid as far as it was checked; 1 run"
    assert "strange.module:net was not imported" in found._repr_html_()
    with pytest.raises(asgd_lab.ScenarioError, match=r'^scenario\["task"\]\["model"\]: strange.module cannot be'):
        asgd_lab.validate(strange)


def test_scenarios_of_timing_alone_are_checked_without_torch_and_the_heavy_libraries() -> None:
    code = f"""
import sys, asgd_lab
asgd_lab.validate({TIMING!r}, {{"sweep": {{"workers": [1, 2]}}}})
asgd_lab.validate({TIMING!r}, {{"backend": {EMULATED!r}}})
asgd_lab.validate("how-stale")
print(*sorted({{"torch", "pandas", "pyarrow", "scipy", "simpy", "matplotlib"}} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == []


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "inline": {"backend": "inline"},
    "emulated": {"backend": EMULATED},
    "too many processes": {"backend": EMULATED, "workers": 241},
    "no such memory": {"workers": 100_000, "sweep": {"algorithm.n_sync": [1, 2]}},
    "a small device": {"hardware.device.memory_bytes": 10},
    "replicas that share a device": {"hardware.device": {"workers": 3, "memory_bytes": 13_000, "vectors": 4}},
    "sync_sgd": {"algorithm": {"name": "sync_sgd", "n_sync": 2}},
    "ssp": {"algorithm": {"name": "ssp", "n_sync": 2, "bound": 1}},
    "sgd": {"algorithm": {"name": "sgd"}, "workers": 1},
    "downpour": {"algorithm": {"name": "downpour", "n_sync": 2, "depth": 3}},
    "hogwild": {"algorithm": {"name": "hogwild", "n_sync": 2}, "backend": EMULATED},
    "two rhythms": {"algorithm": {"name": "asgd", "n_fetch": 4, "n_push": 2}},
    "rules": {"algorithm.rule": ["scale", {"name": "momentum", "beta": 0.9}]},
    "gradients": {"algorithm.push": "gradient", "algorithm.rule": [{"name": "adagrad", "lr": 0.1}]},
    "an outer optimizer": {"algorithm.rule": [{"name": "optimizer", "optimizer": "SGD", "lr": 0.1}]},
    "an outer optimizer that is none": {"algorithm.rule": [{"name": "optimizer", "optimizer": "Nothing"}]},
    "an outer optimizer with a strange key": {"algorithm.rule": [{"name": "optimizer", "optimizer": "SGD", "x": 1}]},
    "a codec": {"algorithm.codec": "cast"},
    "independent servers": {"hardware.server": {"count": 3, "independent": True}},
    "slices": {"hardware.server.count": 5000},
    "a missing run of step times": {"task.step_s": None, "hardware.compute": {"distribution": "empirical",
                                                                             "run": "nowhere"}},
    "a warm start": {"warm_start": {"run": "nowhere"}},
    "a checkpoint": {"backend": {**EMULATED, "checkpoint": {"every_updates": 5}}},
    "faults": {"faults": {"schedule": [{"name": "kill", "worker": 1, "at_s": 0.01}]}},
    "no algorithm": {"algorithm": "nowhere.module:Algorithm"},
    "no rule": {"algorithm.rule": ["nowhere.module:Rule"]},
    "no backend": {"backend": "nowhere.module:Backend"},
    "a GPU": {"backend": {"name": "process", "device": "cuda"}},
}  # fmt: skip


def checked(scenario: Any, changes: dict[str, Any]) -> tuple[Any, ...]:
    """The result of the check, or its error's lines."""
    try:
        request = Request.of(scenario, changes)
        return request.check(partly=True), request.warnings()
    except asgd_lab.ScenarioError as error:
        return error.args


@pytest.mark.parametrize("trusted", [True, False])
def test_the_check_of_timing_alone_finds_what_the_whole_check_finds(
    monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    monkeypatch.setattr("asgd_lab.backends.host_memory.free_memory_bytes", lambda: 10**8)
    cases = [(TIMING, changes) for changes in VARIANTS.values()]
    cases += [(name, {}) for name in carried.names() if "task: {name: timing" in carried.path_of(name).read_text()]  # type: ignore[union-attr]
    with asgd_lab.trusting(trusted):
        found = [checked(*case) for case in cases]
        monkeypatch.setattr(timing_checks, "suffices", lambda scenario: False)
        assert found == [checked(*case) for case in cases]
    assert len(cases) > len(VARIANTS)


def test_the_quick_check_is_used_for_most_of_these() -> None:
    def suffices(changes: dict[str, Any]) -> bool:
        try:
            return all(timing_checks.suffices(each.scenario) for each in Request.of(TIMING, changes).points)
        except asgd_lab.ScenarioError:
            return False

    assert sum(map(suffices, VARIANTS.values())) >= 12
    assert not timing_checks.suffices(Request.of(BOWL).points[0].scenario), "its optimizer is torch's"


class OneCycle(Plain):
    """A schedule of ten minibatches; torch's fails at the eleventh."""

    def optimizer(self, model: nn.Module) -> Any:
        made = torch.optim.SGD(model.parameters(), lr=0.1)
        return [made, torch.optim.lr_scheduler.OneCycleLR(made, max_lr=0.1, total_steps=10)]


CYCLE: dict[str, Any] = {
    **{"name": "cycle", "task": {"name": "own", "task": OneCycle}, "algorithm": {"name": "asgd", "n_sync": 1}},
    **{"workers": 1, "budget": {"minibatches": 10}, "backend": "inline"},
}


def test_a_schedule_that_ends_before_the_budget_is_told_before_the_run() -> None:
    assert asgd_lab.run(CYCLE).summary["minibatches"] == 10
    ends = r"a scheduler ends after 10 minibatches of a worker"
    too_many = rf'^scenario\["budget"\]\["minibatches"\]: {ends}, and the run takes 21 minibatches over 2 workers'
    with pytest.raises(asgd_lab.ScenarioError, match=too_many):
        asgd_lab.validate(CYCLE | {"workers": 2, "budget": {"minibatches": 21}})
    with pytest.raises(asgd_lab.ScenarioError, match=f"must be at most 10: {ends}"):
        asgd_lab.validate(CYCLE | {"warm_start": {"minibatches": 11}})


def test_a_schedule_that_may_end_before_the_budget_is_a_warning() -> None:
    def warned(**changes: Any) -> bool:
        found = asgd_lab.validate(CYCLE | changes).warnings
        return any("a scheduler ends after 10 minibatches" in line for line in found)

    assert not warned()
    assert warned(workers=2, budget={"minibatches": 20})
    assert not warned(workers=2, budget={"minibatches": 20}, algorithm={"name": "sync_sgd", "n_sync": 1})
    assert warned(budget={"minibatches": 11, "updates": 5})


def test_what_cannot_be_batched_is_told_before_the_run() -> None:
    batched = {"backend": {"name": "sim", "numerics": "batched"}, "hardware": {"compute": {"step_s": 0.01}}}
    assert not asgd_lab.validate({**DIGITS, **batched}).warnings
    for changes, why in (
        ({"task": CYCLE["task"]}, "the task is own"),
        ({"task": {**DIGITS["task"], "model": with_dropout}}, "draws random numbers"),
    ):
        with pytest.raises(asgd_lab.ScenarioError, match=rf'^scenario\["backend"\]\["numerics"\]: cannot .*{why}'):
            asgd_lab.validate({**DIGITS, **batched, **changes})


def with_dropout(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, num_classes))
