"""Runs on GPUs, where there are none: on pretended ones, and with the CPU in their place. Both give the CPU's bits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asgd_lab.app.replay_command import replay as tell
from asgd_lab.backends import devices, replay, verification
from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.run import execute
from asgd_lab.backends.settings import settled
from asgd_lab.errors import ScenarioError
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.record.saved_model import final
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.determinism import repeatable, tolerance
from asgd_lab.tasks.global_generators import generators_of, preserving_generators, seed_with
from asgd_lab.tasks.recipe import casting
from tests.backends.pretended import GPU, OnGpu, gpus
from tests.backends.scenarios import DIGITS, QUADRATIC, scenario
from tests.tasks import test_image_folders
from tests.tasks.configs import Classification, Optimizer, pictures
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
    "sim, what is faster": {"backend": {"numerics": "auto"}},
}  # fmt: skip


def stated(name: str, device: str, **more: Any) -> Scenario:
    parts = {"task": VARIED, "workers": 3, "budget": {"minibatches": 36}, "algorithm": {"name": "asgd", "n_sync": 3}}
    parts |= RUNS.get(name, {})
    chosen = more.pop("backend", parts.get("backend", {}))
    backend = {"name": chosen} if isinstance(chosen, str) else {"name": "sim", **chosen}
    return scenario(**{**parts, "backend": {**backend, "device": device}, **more})


def recorded(run_dir: Path) -> tuple[Any, ...]:
    """All that a run gives but its times on this machine."""
    told = {name: value for name, value in read_summary(run_dir).items() if name not in verification.OF_THIS_MACHINE}
    saved = final(run_dir)
    frames = [tables.read(run_dir, name) for name in ("effects", "minibatches", "evals")]
    buffers = {name: value.tobytes() for name, value in saved.buffers.items()}
    return told, saved.params.tobytes(), buffers, [frame.to_csv() for frame in frames]


@pytest.mark.parametrize("name", sample(RUNS, 5))
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


def test_batched_rounds_are_those_of_the_cpu_to_rounding(tmp_path: Path) -> None:
    """On a GPU torch chooses another kernel for the optimizer."""
    backend, found = {"numerics": "batched"}, []
    for device in ("cpu", "cuda"):
        with gpus(1):
            execute(stated("batched", device, task=DIGITS, backend=backend), tmp_path / device)
        found.append(final(tmp_path / device).params)
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    fused = {**DIGITS, "optimizer": {"name": "SGD", "lr": 0.1, "fused": True}}
    with gpus(1), pytest.raises(ScenarioError, match="cannot be batched: the task has a fused optimizer"):
        execute(stated("batched", "cuda", task=fused, backend=backend), tmp_path / "fused")


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
        with preserving_generators():
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
@pytest.mark.parametrize("backend", ["sim", "process"])
def test_a_run_on_gpus_whose_bits_are_not_promised_is_not_replayed(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.STAND_IN, "1")
    for deterministic in (False, True)[: 2 if backend == "sim" else 1]:
        run = tmp_path / str(deterministic)
        execute(on_node(deterministic, backend), run)
        if deterministic:
            tell(run)
            continue
        with pytest.raises(ScenarioError, match=r"without backend\.deterministic: its bits are not promised") as caught:
            tell(run)
        assert "\n" not in str(caught.value)


SECOND = torch.device("cuda", 1)
DATA: dict[str, dict[str, Any]] = {
    "tensors": {},
    "members of a composed sample": {"train_members": torch.arange(60).view(60, 1).repeat(1, 2) // 2 * 2,
                                     "test_members": torch.arange(8).view(8, 1).repeat(1, 2)},
}  # fmt: skip


def trained(task: ClassificationTask, device: torch.device) -> tuple[Any, ...]:
    """Steps, an evaluation, and steps of another learner that goes on from files."""
    params = task.initial().to(device)
    learner = task.learner(1, params, torch.zeros_like(params))
    taken = [learner.minibatch(step) for step in range(3)]
    rows = task.evaluate(params, learner.buffers(), of_replica=True) + task.evaluate(params)
    files = {name: value.cpu().numpy() for name, value in learner.state().items()}
    vector = torch.from_numpy(params.cpu().numpy()).clone().to(device)
    later = task.learner(1, vector, torch.zeros_like(vector))
    later.load({name: torch.from_numpy(value) for name, value in files.items()})
    taken += [each.minibatch(3) for each in (learner, later)]
    assert vector.device == params.device == device
    return taken, rows, params.cpu().numpy().tobytes(), vector.cpu().numpy().tobytes()


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("data", DATA)
def test_a_worker_of_any_gpu_learns_evaluates_and_goes_on_from_files_as_on_the_cpu(data: str, optimizer: str) -> None:
    options = {"lr": 0.05, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.01, "weight_decay": 0.0}
    stated = Classification(model="lenet" if data == "tensors" else "mlp", optimizer=Optimizer(optimizer, options))
    found = []
    for device in (torch.device("cpu"), SECOND):
        with gpus(2) if device == SECOND else contextlib.nullcontext():
            task = ClassificationTask(stated, 3, {**pictures(60, (1, 12, 12)), **DATA[data]})
            task.check(device=device, gradients=True)
            task.check_resume(device=device)
            found.append(trained(task, device))
    assert found[0] == found[1]
    names = ("train_images", "train_labels", "test_images", "test_labels", "train_members", "test_members")
    parts = {**pictures(60, (1, 12, 12)), **DATA[data]}
    assert task.device_bytes == sum(parts[name].nbytes for name in names if name in parts)


def test_images_from_files_are_decoded_on_the_host_and_learned_from_on_the_gpu(tmp_path: Path) -> None:
    tree = test_image_folders.grow(tmp_path, ["ant", "bee"], 6)
    stated = test_image_folders.config(tree, model="small", dataset_options={"colours": 0.1, "ten_crops": True})
    found = []
    for device in (torch.device("cpu"), SECOND):
        with gpus(2) if device == SECOND else contextlib.nullcontext():
            task = ClassificationTask(stated, 3, test_image_folders.load(stated))
            task.check(device=device)
            found.append(trained(task, device))
    assert found[0] == found[1]
    assert task.device_bytes == 8 * (12 + 4)


class Told(nn.Module):
    """Says what autocast it is called in."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        kind = images.device.type
        if torch.is_autocast_enabled(kind) != (self.training and torch.is_grad_enabled()):
            raise RuntimeError(f"autocast of {kind} is wrong")
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != torch.bfloat16:
            raise RuntimeError(f"autocast of {kind} is to {torch.get_autocast_dtype(kind)}")
        answers: Tensor = self.head(images.flatten(1))
        return answers


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bfloat16_is_of_the_device_that_computes_and_of_training_alone(device: str, tmp_path: Path) -> None:
    with gpus(1):
        task = {**DIGITS, "model": f"{HERE}:Told", "precision": "bfloat16"}
        summary = execute(stated("inline", device, task=task, warm_start={"minibatches": 2}), tmp_path / "run")
        assert summary["status"] == "done"
        torch.cuda.is_bf16_supported = lambda: False  # type: ignore[method-assign]  # which is put back with the rest
        with pytest.raises(
            ScenarioError, match=r"^bfloat16 cannot be used here: .* does not support bfloat16"
        ) as caught:
            casting("bfloat16", GPU)
    assert caught.value.key == "task.precision"


@pytest.mark.parametrize("backend", ["inline", "sim"])
def test_a_run_that_does_not_fit_on_its_gpu_is_refused(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "free_bytes", lambda gpu: 1000)
    with gpus(1), pytest.raises(ScenarioError, match=r"on GPU 0, and 0\.0 GB are free there") as caught:
        execute(on_node(False, backend), tmp_path / "run")
    assert caught.value.key == "workers"


@pytest.mark.parametrize("backend", ["inline", "sim"])
def test_without_a_gpu_a_run_in_one_process_is_refused_too(backend: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cuda needs a GPU and torch finds none here") as caught:
        execute(on_node(False, backend), tmp_path / "run")
    assert caught.value.key == "backend.device"


def test_what_a_run_says_to_torch_of_gpus_is_taken_back() -> None:
    with gpus(2):
        torch.cuda.set_device(1)
        with settled():
            devices.use(GPU, deterministic=True)
            assert torch.cuda.current_device() == 0
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.allow_tf32
            assert tolerance(GPU) == tolerance(torch.device("cpu"))
            with repeatable(GPU):
                assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.cuda.current_device() == 1
        assert torch.backends.cudnn.allow_tf32
        assert not torch.are_deterministic_algorithms_enabled()
        assert tolerance(GPU) > tolerance(torch.device("cpu"))
        with repeatable(GPU):
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            assert torch.backends.cudnn.deterministic
        assert not torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.deterministic
