"""Runs on GPUs, where there are none: on pretended ones, and with the CPU in their place. Both give the CPU's bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asgd_lab.backends import devices, replay, verification
from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.run import execute
from asgd_lab.backends.settings import settled
from asgd_lab.errors import ScenarioError
from asgd_lab.record import tables
from asgd_lab.record.parameters import final
from asgd_lab.record.run import read_summary
from asgd_lab.replaying import replay as tell
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.randomness import generators_of, seed_with, untouched
from tests.backends.pretended import OnGpu, gpus
from tests.backends.scenarios import DIGITS, QUADRATIC, scenario
from tests.whole import sample

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there are real ones")
HERE = "tests.backends.test_on_gpus"


def varied(num_classes: int) -> nn.Module:
    """With statistics of its own, random numbers, and a parameter that is not trained."""
    fixed = nn.Linear(36, 24).requires_grad_(False)
    first = (nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten())
    return nn.Sequential(*first, fixed, nn.Dropout(0.2), nn.Linear(24, num_classes))


class Demanding(nn.Module):
    """Works on a GPU alone: it moves things there and draws there, whatever device it was told."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, num_classes)
        self.cuda()
        self.register_buffer("scale", torch.ones(1).cuda())

    def forward(self, images: Tensor) -> Tensor:
        if not images.is_cuda:
            raise RuntimeError("my kernels are for GPUs")
        noise = torch.zeros(images.shape[0], 1, device="cuda:0") + torch.rand(()).cuda()
        answers: Tensor = self.head(images.flatten(1)) * self.scale + noise
        return answers


VARIED = {**DIGITS, "model": f"{HERE}:varied"}
WATCHED = {"every_minibatches": 10, "parameters": ["server", "replicas"]}
GRADIENTS = {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "momentum", "beta": 0.5}, "adadelta"]}
RUNS: dict[str, dict[str, Any]] = {
    "inline": {"backend": "inline"},
    "inline, gradients": {"backend": "inline", "algorithm": GRADIENTS},
    "inline, lock-step": {"backend": "inline", "algorithm": {"name": "sync_sgd", "n_sync": 2, "rule": ["mean"]}},
    "inline, overlapped": {
        "backend": "inline", "algorithm": {"name": "downpour", "n_fetch": 3, "n_push": 2, "depth": 2},
    },
    "inline, a bowl": {"backend": "inline", "task": QUADRATIC},
    "sim, looked at": {"evaluate": WATCHED, "warm_start": {"minibatches": 3}, "backend": {"distances": True}},
    "sim, gradients": {"algorithm": GRADIENTS, "task": {**VARIED, "clip": {"norm": 0.5}}},
    "sim, bounded": {"algorithm": {"name": "ssp", "n_sync": 2, "bound": 1}},
    "sim, slices": {"hardware": {"compute": {"step_s": 0.01}, "server": {"count": 3, "independent": True}}},
    "sim, Adam": {"task": {**VARIED, "optimizer": {"name": "AdamW", "lr": 0.01}}},
    "sim, the server's statistics": {"task": {**VARIED, "batch_norm": "server"}, "evaluate": WATCHED},
    "sim, own parts": {"task": {**VARIED, "data": "sharded", "biases": {"lr": 2.0}}, "evaluate": WATCHED},
    "sim, deaths": {"faults": {"schedule": [{"name": "kill", "worker": 1, "at_s": 0.007, "repair_s": 0.001}]}},
    "sim, a bowl": {"task": QUADRATIC, "evaluate": WATCHED},
    "sim, batched": {"backend": {"numerics": "batched"}, "task": DIGITS},
    "sim, what is faster": {"backend": {"numerics": "auto"}},
}  # fmt: skip


def stated(name: str, device: str, **more: Any) -> Scenario:
    parts = {"task": VARIED, "workers": 3, "budget": {"minibatches": 36}, "algorithm": {"name": "asgd", "n_sync": 3}}
    parts |= RUNS[name]
    chosen = parts.get("backend", {})
    backend = {"name": chosen} if isinstance(chosen, str) else {"name": "sim", **chosen}
    return scenario(**{**parts, "backend": {**backend, "device": device}, **more})


def recorded(run_dir: Path) -> tuple[Any, ...]:
    """All that a run gives but its times on this machine."""
    told = {name: value for name, value in read_summary(run_dir).items() if name not in verification.OF_THIS_MACHINE}
    saved = final(run_dir)
    frames = [tables.read(run_dir, name) for name in ("effects", "minibatches", "evals")]
    buffers = {name: value.tobytes() for name, value in saved.buffers.items()}
    return told, saved.params.tobytes(), buffers, [frame.to_csv() for frame in frames]


@pytest.mark.parametrize("name", sample(RUNS, 8))
def test_a_run_in_one_process_has_the_cpus_bits_on_a_gpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(stated(name, "cpu"), tmp_path / "cpu")
    with gpus(2):
        execute(stated(name, "cuda"), tmp_path / "pretended")
    monkeypatch.setenv(devices.STAND_IN, "2")
    execute(stated(name, "cuda"), tmp_path / "stand-in")
    expected = recorded(tmp_path / "cpu")
    assert expected[0]["minibatches"] >= 36
    for other in ("pretended", "stand-in"):
        assert recorded(tmp_path / other) == expected, other
    assert read_summary(tmp_path / "stand-in")["gpus"] == {"stand_in": 2}
    assert read_summary(tmp_path / "pretended")["gpus"]["names"] == ["pretended"]
    assert "gpus" not in read_summary(tmp_path / "cpu")


def test_replicas_server_and_mailboxes_lie_on_the_gpu(tmp_path: Path) -> None:
    """Else the test above would compare the CPU with itself."""
    with gpus(1), settled():
        state = stated("inline, gradients", "cuda")
        task = build_task(state)
        initial = initial_parameters(state, task)
        from asgd_lab.backends.build import build_algorithm, build_budget
        from asgd_lab.backends.inline import Inline

        lab = Inline(task, build_algorithm(state), build_budget(state), 2, initial)
        lab.run([0, 0, 0, 1])
        vectors = lab.workers[0].replica.vectors
        assert vectors is not None
        server = lab.server.parameters
        assert server is not None
        seen = [vectors.params, vectors.update, vectors.center, lab.parameters, *lab.mailboxes.values(), *server.state]
        assert all(isinstance(each, OnGpu) for each in seen)
        with pytest.raises(TypeError, match="numpy"):
            lab.parameters.numpy()
        with pytest.raises(RuntimeError, match="same device"):
            lab.parameters + torch.ones(task.size)


def test_a_model_that_needs_a_gpu_is_tried_trained_and_evaluated_there(tmp_path: Path) -> None:
    task = {**DIGITS, "model": f"{HERE}:Demanding"}
    with gpus(1):
        summary = execute(stated("inline", "cuda", task=task, warm_start={"minibatches": 2}), tmp_path / "gpu")
        assert summary["final"]["test_loss"] > 0
        with pytest.raises(ScenarioError, match="my kernels are for GPUs"):
            execute(stated("inline", "cpu", task=task), tmp_path / "cpu")


def test_a_gpus_random_numbers_are_seeded_beside_the_hosts_and_put_back() -> None:
    with gpus(2):
        first, second = torch.cuda.default_generators
        second.manual_seed(1), torch.manual_seed(1)
        assert generators_of(torch.device("cuda")) == (torch.default_generator, first)
        with untouched():
            seed_with(generators_of(torch.device("cuda", 1)), 77)
            assert (torch.initial_seed(), second.initial_seed()) == (77, 77)
            assert first.initial_seed() != 77
            drawn = torch.rand(2, generator=second)
        assert torch.equal(torch.rand(2, generator=second), torch.rand(2, generator=torch.Generator().manual_seed(1)))
        assert not torch.equal(torch.rand(2, generator=second), drawn)
    assert generators_of(torch.device("cpu")) == (torch.default_generator,)


def on_node(deterministic: bool, backend: str = "process", **more: Any) -> Scenario:
    chosen = {"name": backend, "device": "cuda", "deterministic": deterministic}
    return scenario(task=VARIED, workers=2, backend=chosen, budget={"minibatches": 30}, **more)


@pytest.mark.xdist_group("process")
def test_a_deterministic_run_on_gpus_replays_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setenv(devices.STAND_IN, "2")
        execute(on_node(True, warm_start={"minibatches": 2}), run)
        tell(run)
    assert "the final parameters are the same bits" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ScenarioError, match="was computed on GPUs, and torch finds none here"):
        tell(run)
    with gpus(1):
        with pytest.raises(ScenarioError, match="on the CPU, which stood in for GPUs"):
            tell(run)
        monkeypatch.setattr(replay, "check_gpus", lambda scenario, run_dir: None)
        verdict = replay.repeat(on_node(True, warm_start={"minibatches": 2}), run)
    assert (verdict.difference, verdict.final) == (None, True)
    assert verdict.pushes == 10


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_run_on_gpus_whose_bits_are_not_promised_is_not_replayed(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.STAND_IN, "1")
    for deterministic in (False, True):
        run = tmp_path / str(deterministic)
        execute(on_node(deterministic, backend), run)
        if deterministic:
            tell(run)
            continue
        with pytest.raises(ScenarioError, match=r"without backend\.deterministic: its bits are not promised") as caught:
            tell(run)
        assert "\n" not in str(caught.value)
