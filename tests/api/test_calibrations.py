"""`asgd_lab.calibrate` and the command: one worker's costs on this machine, as hardware and as a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asgd_lab
from asgd_lab import calibrations
from asgd_lab.scenario import Document
from tests.api.test_validation import EMULATED, TIMING
from tests.cli.harness import asgd_lab as command

TINY: dict[str, Any] = {
    **TIMING,
    "name": "tiny",
    "task": {"name": "timing", "size_bytes": 1000, "step_s": 0.002},
    "backend": EMULATED,
    "hardware": {"server": {"push_s": 0.004}},
    "sweep": {"algorithm.n_sync": [1, 5], "workers": [1, 4]},
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgd_lab.prediction.CALIBRATION_S", 0.3)


@pytest.mark.xdist_group("process")
def test_a_calibration_is_hardware_and_a_simulated_scenario_with_its_sweep(tmp_path: Path) -> None:
    said: list[str] = []
    found = asgd_lab.calibrate(TINY, out=tmp_path / "out", say=said.append)
    assert len(said) == 1
    assert sorted(path.name for path in found.path.iterdir()) == ["0-n_fetch=1", "1-n_fetch=5"]
    assert (found.step_s, found.size_bytes) == (0.002, 1000)
    assert 0.004 <= found.hardware["server"]["push_s"] < 0.006, "the emulated server takes at least its stated time"
    assert "ms" in found._repr_html_()
    swept = asgd_lab.sweep(found.scenario, out=tmp_path / "swept", jobs=1)
    assert len(swept) == 4
    changes = {"sweep": None, "backend": "sim", "hardware": found.hardware}
    asgd_lab.run(TINY, changes, out=tmp_path / "run")
    file = found.save(tmp_path / "fitted.yaml")
    assert Document.read(file).scenario() == found.scenario
    with pytest.raises(asgd_lab.ScenarioError, match="exists, and is not overwritten"):
        found.save(file)


@pytest.mark.xdist_group("process")
def test_the_command_writes_a_file_that_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(Document.dump(asgd_lab.Scenario.model_validate(TINY)))
    said = command("calibrate", "tiny.yaml", "-o", "fitted.yaml", "--out", "runs-of-one", "--set", "sweep=null")
    assert (said.status, said.err) == (0, "")
    assert said.out.endswith(f"wrote fitted.yaml; recorded in {tmp_path / 'runs-of-one'}\n")
    assert command("run", "fitted.yaml", "--out", "predicted").status == 0
    said = command("calibrate", "tiny.yaml", "-o", "fitted.yaml")
    assert (said.status, said.err) == (2, "fitted.yaml: exists, and is not overwritten; choose another name\n")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a simulation": ({"backend": "sim", "hardware": None}, 'changes["backend"]: calibrate measures: backend must be'),
    "two tasks": ({"sweep": {"task.size_bytes": [1, 2]}}, 'changes["sweep"]: has points that need calibrations of'),
    "a target": (
        {"task": {"name": "quadratic", "curvature": [1.0]}, "sweep": None, "hardware.compute.step_s": 0.01,
         "budget": {"target": {"split": "train", "metric": "loss", "below": 0.1}, "minibatches": 5}},
        'changes["budget"]: budget.target: a prediction of timing alone knows no metric',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_calibrated_is_one_line_and_nothing_is_begun(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes, words = REFUSED[case]
    with pytest.raises(asgd_lab.ScenarioError) as raised:
        asgd_lab.calibrate(TINY, changes)
    assert words in str(raised.value)
    assert len(raised.value.args) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_tells_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrations.prediction, "calibrate", stop)
    with pytest.raises(asgd_lab.Interrupted, match="what was recorded is in") as raised:
        asgd_lab.calibrate(TINY, out=tmp_path / "out")
    assert raised.value.run_dir == tmp_path / "out"
