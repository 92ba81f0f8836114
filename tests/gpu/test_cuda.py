"""The product on a GPU. Where there is none these tests are skipped, unless the CPU stands in: see `place`.

`make gpu` runs them. The stand-in is a variable of the environment, which processes have from their start: so it is not
set here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asgd_lab.backends import devices
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.real.transports.memory import Stack, protect
from asgd_lab.backends.real.transports.staging import Staging
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record import checkpoints
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.gpu import networks
from tests.gpu.place import STAND_IN, Place, find

pytestmark = pytest.mark.skipif(
    not (os.environ.get(STAND_IN) or torch.cuda.is_available()), reason=f"no GPU, and {STAND_IN} is not set"
)
needs_gpu = pytest.mark.skipif(bool(os.environ.get(STAND_IN)) or not torch.cuda.is_available(), reason="no GPU")
ASGD = {"name": "asgd", "n_sync": 3}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "asgd": ASGD,
    "gradients": ASGD | {"push": "gradient", "rule": [{"name": "adagrad", "lr": 0.01}]},
    "downpour": {"name": "downpour", "n_fetch": 4, "n_push": 2, "depth": 2},
    "lock-step": {"name": "sync_sgd", "n_sync": 2},
}


@pytest.fixture(scope="module")
def place() -> Place:
    """Where these tests run."""
    return find()


@pytest.fixture
def scenario(place: Place) -> Callable[..., Scenario]:
    """A small scenario on the device; parts of it may be others."""

    def made(backend: dict[str, Any] | None = None, **parts: Any) -> Scenario:
        stated = {
            "name": "cuda", "task": networks.of_images("Dropping", 32, 8, 4), "algorithm": ASGD, "workers": 2,
            "budget": {"minibatches": 24}, "backend": place.backend(**(backend or {})),
            "hardware": {"compute": {"step_s": 0.01}},
        }  # fmt: skip
        return Scenario.model_validate({**stated, **parts})

    return made


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_says_what_it_was_computed_on_and_repeats_to_the_bit(
    tmp_path: Path, scenario: Callable[..., Scenario], place: Place, name: str
) -> None:
    stated = scenario({"deterministic": True, "digest_every_updates": 2}, algorithm=ALGORITHMS[name])
    summary = execute(stated, tmp_path / "run")
    assert (summary["status"], summary["minibatches"]) == ("done", 24)
    assert summary["final"]["test_loss"] > 0
    gpus = summary["gpus"]
    assert gpus["names"][0] == torch.cuda.get_device_name(0) if place.gpu else gpus["stand_in"] == 1
    verdict = repeat(stated, tmp_path / "run")
    assert verdict.difference is None
    assert verdict.final


def test_what_a_users_model_puts_on_cuda_is_where_its_worker_computes(
    tmp_path: Path, scenario: Callable[..., Scenario]
) -> None:
    task = networks.of_images("OnCuda", 32, 8, 4) | {"dataset": "digits", "dataset_options": {}}
    summary = execute(scenario(task=task, workers=max(2, devices.count())), tmp_path / "run")
    assert summary["status"] == "done"


@pytest.mark.parametrize("length", [1, 1000, 1024, 1_000_003])
def test_vectors_are_staged_both_ways_whole(place: Place, length: int) -> None:
    stack = Stack("gpu-test", 2, length)
    staging, drawn = Staging(place.device), torch.Generator().manual_seed(1)
    mailbox, version = stack.vector(0, writable=True), stack.vector(1, writable=True)
    on_device, back = (torch.zeros(length, device=place.device) for _ in range(2))
    for _ in range(3):
        sent = torch.randn(length, generator=drawn)
        on_device.copy_(sent)
        staging.to_host(on_device, mailbox).wait()
        assert torch.equal(mailbox, sent)
        stack.vector(1, writable=True).copy_(sent)
        copy = staging.to_device(version, back)
        protect(version)  # as a worker does, after the first copy
        while not copy.done():
            pass
        assert torch.equal(back.cpu(), sent)
    if place.gpu:
        assert staging.counts() == (2, 0), staging.refused
    staging.close()


def test_a_copy_to_the_host_has_what_was_computed_before_it(place: Place) -> None:
    mailbox = Stack("gpu-test", 1, 1_000_000).vector(0, writable=True)
    staging, vector = Staging(place.device), torch.ones(1_000_000, device=place.device)
    for _ in range(20):
        vector.add_(1.0)
    copy = staging.to_host(vector, mailbox)
    copy.wait()
    assert bool((mailbox == 21.0).all())
    staging.close()


@pytest.mark.parametrize("name", ["asgd", "downpour"])
def test_one_worker_has_the_same_bits_in_every_backend(
    tmp_path: Path, scenario: Callable[..., Scenario], place: Place, name: str
) -> None:
    found = {}
    for backend in ("process", "sim", "inline"):
        execute(
            scenario(backend=place.backend(backend, deterministic=True), algorithm=ALGORITHMS[name], workers=1),
            tmp_path / backend,
        )
        found[backend] = final_params(tmp_path / backend)
    assert found["sim"].tobytes() == found["inline"].tobytes()
    if place.gpu and name == "gradients":  # a real run's server computes roots and quotients on the host
        assert found["process"] == pytest.approx(found["sim"], rel=1e-4, abs=1e-6)
    else:
        assert found["process"].tobytes() == found["sim"].tobytes()


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(tmp_path: Path, scenario: Callable[..., Scenario]) -> None:
    stated = scenario(
        {"deterministic": True, "checkpoint": {"every_updates": 4}}, workers=1, budget={"minibatches": 300}
    )

    def interrupt(progress: Progress) -> None:
        if checkpoints.newest(tmp_path / "parts") is not None:
            raise KeyboardInterrupt

    assert execute(stated, tmp_path / "parts", interrupt)["status"] == "interrupted"
    assert execute(stated, tmp_path / "parts", resume=True)["status"] == "done"
    execute(stated, tmp_path / "whole")
    assert final_params(tmp_path / "parts").tobytes() == final_params(tmp_path / "whole").tobytes()


def test_bfloat16_is_of_the_forward_pass_and_parameters_stay_float32(
    tmp_path: Path, scenario: Callable[..., Scenario], place: Place
) -> None:
    ends = {}
    for precision in ("float32", "bfloat16"):
        task = networks.of_images("Conv", 32, 8, 4) | {"precision": precision}
        execute(scenario(task=task, workers=1, backend=place.backend("sim")), tmp_path / precision)
        ends[precision] = final_params(tmp_path / precision)
    assert ends["bfloat16"].dtype == "float32"
    difference = abs(ends["bfloat16"] - ends["float32"]).max()
    assert 0 < difference < 0.05


@needs_gpu
def test_float32_stays_float32(place: Place) -> None:
    devices.use(place.device, deterministic=False)
    drawn = torch.Generator().manual_seed(1)
    one, other = (torch.randn(512, 512, generator=drawn) for _ in range(2))
    exact = one.double() @ other.double()
    found = (one.to(place.device) @ other.to(place.device)).cpu().double()
    assert float((found - exact).norm() / exact.norm()) < 1e-5, "TF32 would give 3e-4"


@needs_gpu
@pytest.mark.parametrize("backend", ["process", "sim"])
def test_what_torch_cannot_compute_deterministically_is_one_line(
    tmp_path: Path, scenario: Callable[..., Scenario], place: Place, backend: str
) -> None:
    stated = scenario(task=networks.of_images("Pooling", 32, 8, 4), backend=place.backend(backend, deterministic=True))
    with pytest.raises((RunFailed, ScenarioError), match="deterministic") as told:
        execute(stated, tmp_path / "run")
    assert "\n" not in str(told.value)


@needs_gpu
@pytest.mark.parametrize("backend", ["process", "sim"])
def test_too_little_memory_is_one_line(
    tmp_path: Path, scenario: Callable[..., Scenario], place: Place, backend: str
) -> None:
    task = networks.of_images("Hungry", 32, 8, 4) | {"dataset": "digits", "dataset_options": {}}
    with pytest.raises((RunFailed, ScenarioError), match="memory") as told:
        execute(scenario(task=task, backend=place.backend(backend)), tmp_path / "run")
    assert "\n" not in str(told.value)
