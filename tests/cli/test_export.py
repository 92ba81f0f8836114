"""The trained model leaves the lab as a plain state_dict, and is what the run evaluated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from asgd_lab.app.cli import app
from asgd_lab.backends.run import execute
from asgd_lab.model_export import trained
from asgd_lab.tasks.datasets import read
from asgd_lab.tasks.samples import pick
from tests.backends.scenarios import DIGITS, QUADRATIC, scenario
from tests.tasks import own_classes

LENET = {**DIGITS, "model": "lenet"}
LOAD = """
import sys, torch
model = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
)
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
assert not any(name.startswith("asgd_lab") for name in sys.modules)
print(sum(each.double().sum() for each in model.state_dict().values()).item())
"""


def exported(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_a_program_without_this_package_loads_the_model(tmp_path: Path, backend: str) -> None:
    stated = scenario(task=DIGITS, backend=backend, workers=2)
    execute(stated, tmp_path / "run")
    found = exported(tmp_path / "run", tmp_path / "model.pt")
    assert found.exit_code == 0, found.output
    assert "4 tensors, 9,610 numbers" in found.output
    told = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model.pt")], capture_output=True, text=True, check=True
    )
    expected = sum(each.double().sum() for each in trained(tmp_path / "run").state_dict().values())
    assert float(told.stdout) == expected.item()


def test_the_module_errs_as_the_run_told(tmp_path: Path) -> None:
    stated = scenario(task=LENET, backend="sim", workers=2)
    summary = execute(stated, tmp_path / "run")
    model, data = trained(tmp_path / "run"), read(stated.task)  # type: ignore[arg-type]
    assert not model.training
    with torch.no_grad():
        wrong = (
            model(pick(data, "test", torch.arange(len(data["test_labels"]))))
            .argmax(1)
            .ne(data["test_labels"])
            .double()
            .mean()
            .item()
        )
    assert wrong == pytest.approx(summary["final"]["test_error"])


@pytest.mark.parametrize("kind", [own_classes.Normed, own_classes.Compiled, own_classes.Tokens, own_classes.Averaged])
@pytest.mark.parametrize("warm", [None, {"minibatches": 5}])
def test_the_module_of_a_class_of_ones_own_has_the_told_loss_with_its_buffers(
    tmp_path: Path, kind: type[Any], warm: Any
) -> None:
    task = {"name": "own", "task": f"{own_classes.__name__}:{kind.__name__}"}
    summary = execute(scenario(task=task, backend="sim", workers=2, warm_start=warm), tmp_path / "run")
    model, own = trained(tmp_path / "run"), kind()
    for split, batches in own.evaluations():
        with torch.no_grad():
            found = [own.loss(model, batch) for batch in batches]
        losses = [each[0] if isinstance(each, tuple) else each for each in found]
        means = [each[0] / each[1] if isinstance(each, tuple) else each for each in losses]
        assert float(sum(means)) / len(means) == pytest.approx(summary["final"][f"{split}_loss"], rel=1e-6)


def test_an_interrupted_run_gives_the_model_of_its_last_checkpoint(tmp_path: Path) -> None:
    backend = {"name": "process", "checkpoint": {"every_updates": 10}}

    def until_a_checkpoint(progress: Any) -> None:
        if progress.version >= 25:
            raise KeyboardInterrupt

    stated = scenario(task=DIGITS, backend=backend, budget={"minibatches": 3000})
    assert execute(stated, tmp_path / "run", until_a_checkpoint)["status"] == "interrupted"
    assert exported(tmp_path / "run", tmp_path / "model.pt").exit_code == 0
    assert torch.load(tmp_path / "model.pt", weights_only=True)["1.weight"].shape == (128, 64)


def test_what_cannot_be_exported_is_told_in_a_line(tmp_path: Path) -> None:
    execute(scenario(task=QUADRATIC), tmp_path / "bowl")
    found = exported(tmp_path / "bowl", tmp_path / "model.pt")
    assert (found.exit_code, "task quadratic trains no network" in found.output) == (2, True)
    (tmp_path / "model.pt").touch()
    found = exported(tmp_path / "bowl", tmp_path / "model.pt")
    assert (found.exit_code, "exists; give the name of a new file" in found.output) == (2, True)
    found = exported(tmp_path / "nowhere", tmp_path / "other.pt")
    assert found.exit_code == 2
    assert len(found.output.strip().splitlines()) == 1


RAW = """
import sys, torch
state = torch.load(sys.argv[1], weights_only=True)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 128), torch.nn.ReLU(), torch.nn.Linear(128, 2))
model.load_state_dict(state)
rows = torch.tensor([list(map(float, line.split(","))) for line in open(sys.argv[2]).read().split()[1:]])
standard = state.input_standard
outputs = model((rows[:, :2] - standard["mean"].float()) / standard["deviation"].float())
assert not any(name.startswith("asgd_lab") for name in sys.modules)
print(*outputs.argmax(1).tolist())
print(outputs.argmax(1).ne(rows[:, 2].long()).double().mean().item())
"""


def test_a_program_without_this_package_predicts_from_raw_rows(tmp_path: Path) -> None:
    for name, count in (("train.csv", 60), ("test.csv", 30)):
        rows = [(1000 + 40 * (i % 2) + i % 7, 0.002 * (i % 5), i % 2) for i in range(count)]
        (tmp_path / name).write_text("\n".join(["a,b,y", *(",".join(map(str, row)) for row in rows)]))
    options = {"file": "train.csv", "test_file": "test.csv", "standardise": True}
    task = {"name": "classification", "dataset": "csv", "data_folder": str(tmp_path), "batch_size": 10,
            "dataset_options": options}  # fmt: skip
    summary = execute(scenario(task=task, backend="sim", workers=2), tmp_path / "run")
    assert summary["final"]["test_error"] == 0.0
    found = exported(tmp_path / "run", tmp_path / "model.pt")
    assert found.exit_code == 0, found.output
    assert "input_standard" in found.output
    told = subprocess.run(
        [sys.executable, "-c", RAW, str(tmp_path / "model.pt"), str(tmp_path / "test.csv")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers, error = told.stdout.splitlines()
    assert (answers.split(), float(error)) == ([str(i % 2) for i in range(30)], 0.0)


@pytest.mark.parametrize("dataset", ["digits", "numpy", "plain"])
def test_the_module_tells_how_its_inputs_are_standardised(tmp_path: Path, dataset: str) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(40, 8, 8, 3), dtype=np.uint8)
    arrays = {f"{split}_{part}": each for split in ("train", "test") for part, each in (
        ("images", pixels), ("labels", np.arange(40) % 3))}  # fmt: skip
    np.savez(tmp_path / "d.npz", **arrays)
    options = {"file": "d.npz", "channels": "last", "standardise": dataset == "numpy"}
    of_files = {"dataset": "numpy", "data_folder": str(tmp_path), "dataset_options": options}
    stated = scenario(
        task={**DIGITS, "batch_size": 8, "train_samples": 32, **(of_files if dataset != "digits" else {})},
        backend="sim",
    )
    execute(stated, tmp_path / "run")
    model, data = trained(tmp_path / "run"), read(stated.task)  # type: ignore[arg-type]
    raw = data["test_images"].float()
    standard = getattr(model, "input_standard", None)
    if dataset == "plain":
        assert standard is None
        return
    assert standard is not None
    received = pick(data, "test", torch.arange(len(raw)))
    assert torch.allclose((raw - standard["mean"]) / standard["deviation"], received, atol=1e-6)
