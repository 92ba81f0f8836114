"""Who computes where, what must fit there, and how vectors get there and back; where no GPU is, by a stand-in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asgd_lab.backends import devices, room
from asgd_lab.backends.real.transports import staging
from asgd_lab.backends.real.transports.staging import Staging
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.saved_model import final_params
from tests.backends.scenarios import DIGITS, scenario
from tests.cli.harness import asgd_lab

GB = 10**9
ALGORITHMS = [
    {"name": "asgd", "n_sync": 2},
    {"name": "asgd", "n_fetch": 3, "n_push": 2},
    {"name": "downpour", "n_fetch": 2, "n_push": 3, "depth": 2},
    {"name": "ssp", "n_sync": 2, "bound": 1},
    {"name": "sync_sgd", "n_sync": 2},
]


def on_gpus(**parts: Any) -> Any:
    return scenario(backend={"name": "process", "device": "cuda"}, task=DIGITS, **parts)


@given(st.integers(1, 16), st.integers(1, 240))
def test_workers_are_spread_evenly_over_the_gpus(gpus: int, workers: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: gpus)
        stated = on_gpus(workers=workers)
        found = Counter(str(devices.of(stated, worker)) for worker in range(workers))
        assert set(found) <= {f"cuda:{gpu}" for gpu in range(gpus)}
        assert max(found.values()) - min(found.get(f"cuda:{gpu}", 0) for gpu in range(gpus)) <= 1
        assert devices.home(stated) == torch.device("cuda", 0)


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_whoever_names_no_gpu_computes_on_the_cpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    stated = scenario(backend={"name": "process", "device": device})
    assert {devices.of(stated, worker) for worker in range(3)} == {torch.device("cpu")}
    assert devices.facts(stated) == {}
    devices.check(stated)


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each["name"])
def test_a_gpu_without_room_for_its_workers_is_refused_with_the_sum(
    algorithm: dict[str, Any], gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is where the largest number of workers that share one fits no more."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    stated, size = on_gpus(workers=5, algorithm=algorithm), 10**8
    share = -(-5 // gpus)
    coupled = algorithm["name"] in ("ssp", "sync_sgd") or "n_sync" in algorithm
    vectors = {"downpour": 2 + 2 + 1 + 2}.get(algorithm["name"], 4 if coupled else 5)  # by hand, of each worker
    needed = share * (4 * size * vectors + GB) + 4 * size * 2 + GB  # and of the process that evaluates
    monkeypatch.setattr(devices, "free_bytes", lambda gpu: needed)
    room.check_gpus(stated, size, GB)
    monkeypatch.setattr(devices, "free_bytes", lambda gpu: needed - 1)
    with pytest.raises(ScenarioError, match=rf"^{share} with 100,000,000 parameters and 1\.0 GB of data need"):
        room.check_gpus(stated, size, GB)


def test_the_first_gpu_that_is_too_full_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(devices, "free_bytes", lambda gpu: GB if gpu == 2 else 100 * GB)
    with pytest.raises(ScenarioError, match=re.escape("on GPU 2, and 1.0 GB are free there")):
        room.check_gpus(on_gpus(workers=4), 10**8, 0)
    room.check_gpus(on_gpus(workers=2), 10**8, 0)  # of which nobody is on that one


@pytest.mark.parametrize("command", ["run", "validate"])
def test_without_a_gpu_there_is_one_line(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (tmp_path / "it.yaml").write_text(
        "name: bowl\ntask: {name: quadratic, curvature: [1.0]}\nalgorithm: {name: asgd, n_sync: 2}\nworkers: 2\n"
        "budget: {minibatches: 20}\nbackend: {name: process, device: cuda}\n"
    )
    said = asgd_lab(command, tmp_path / "it.yaml")
    assert said.status == 2
    assert said.err.endswith(
        "it.yaml:6: backend.device: cuda needs a GPU and torch finds none here; use cpu or emulated\n"
    )


@pytest.mark.parametrize("text", ["two", "-1", "1.5", "٢", " 2", "1" * 40])
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_number_of_gpus_to_stand_in_for_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, command: str
) -> None:
    monkeypatch.setenv(devices.STAND_IN, text)
    monkeypatch.chdir(tmp_path)
    Path("it.yaml").write_text(
        "name: it\ntask: {name: quadratic, curvature: [1.0]}\nalgorithm: {name: asgd, n_sync: 2}\n"
        "budget: {minibatches: 4}\nbackend: {name: process, device: cuda}\n"
    )
    said = asgd_lab(command, "it.yaml")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert f"{devices.STAND_IN}: must be a number of GPUs, at most 9999; got '" in said.err


def test_a_gpu_that_has_no_memory_left_fails_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.STAND_IN, "1")
    (tmp_path / "it.yaml").write_text(
        f"name: full\ntask:\n  name: classification\n  dataset: digits\n  model: {__name__}:Hungry\n  batch_size: 8\n"
        "  optimizer: {name: SGD, lr: 0.1}\nalgorithm: {name: asgd, n_sync: 2}\nworkers: 2\n"
        "budget: {minibatches: 400}\nbackend: {name: process, device: cuda}\nfaults: {on_death: restart}\n"
    )
    said = asgd_lab("run", tmp_path / "it.yaml", "--trust", "--out", tmp_path / "out")
    assert said.status == 1
    (line,) = said.err.splitlines()
    assert "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity" in line
    assert "PYTORCH_CUDA_ALLOC_CONF" not in line


class Hungry(torch.nn.Module):
    """After some minibatches it wants more than any GPU has."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(64, num_classes)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: Tensor) -> Any:
        if self.training:
            self.calls += 1
            if self.calls > 40:
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which "
                    "3.20 GiB is free. Process 1 has 12.57 GiB memory in use. If reserved but unallocated memory is "
                    "large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
                )
        return self.head(images.flatten(1))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each["name"])
def test_a_worker_that_is_staged_learns_what_one_on_the_cpu_learns(
    algorithm: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, whose order is its own: the same bits, though its copies are made as late as may be."""
    monkeypatch.setenv(devices.STAND_IN, "2")
    found = []
    for device in ("cpu", "cuda"):
        stated = scenario(
            backend={"name": "process", "device": device}, task=DIGITS, algorithm=algorithm, budget={"minibatches": 60}
        )
        summary = execute(stated, tmp_path / device)
        found.append(final_params(tmp_path / device).tobytes())
    assert found[0] == found[1]
    assert summary["gpus"]["stand_in"] == 2


class FakeCuda:
    """What of torch.cuda copies need; a copy happens when its event is asked for the second time, or waited for."""

    def __init__(self) -> None:
        self.refuses: set[int] = set()  # addresses
        self.registered: list[tuple[int, int, int]] = []
        self.forgotten: list[int] = []
        self.pinned = 0

    def Stream(self, device: torch.device) -> Any:  # noqa: N802
        return self

    Event = property(lambda self: lambda: self)

    def pinned_like(self, vector: Tensor) -> Tensor:
        self.pinned += 1
        return torch.empty_like(vector)

    def wait_stream(self, other: Any) -> None: ...
    def record(self, stream: Any) -> None: ...
    def synchronize(self, device: Any = None) -> None: ...

    def query(self) -> bool:
        return True

    def current_stream(self, device: torch.device) -> Any:
        return self

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield

    def cudart(self) -> Any:
        return self

    def cudaHostRegister(self, address: int, size_bytes: int, flags: int) -> int:  # noqa: N802
        self.registered.append((address, size_bytes, flags))
        return 801 if address in self.refuses else 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        self.forgotten.append(address)
        return 0

    def cudaGetErrorString(self, error: int) -> str:  # noqa: N802
        return "operation not supported"


@pytest.mark.parametrize("refuses_mailboxes", [False, True])
@pytest.mark.parametrize("refuses_versions", [False, True])
def test_shared_vectors_are_registered_once_and_what_is_refused_goes_through_a_buffer(
    refuses_mailboxes: bool, refuses_versions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeCuda()
    monkeypatch.setattr(staging.torch, "cuda", fake)
    monkeypatch.setattr(staging, "pinned_like", fake.pinned_like)
    monkeypatch.setattr(staging, "forget_error", lambda device: None)
    copies = Staging(torch.device("cuda", 0))
    mailboxes, versions = ([torch.zeros(1000) for _ in range(count)] for count in (2, 4))
    refused = [*(mailboxes if refuses_mailboxes else []), *(versions if refuses_versions else [])]
    fake.refuses = {each.data_ptr() for each in refused}
    source, target = torch.randn(1000), torch.zeros(1000)
    for turn in range(3):
        for mailbox in mailboxes:
            source += 1
            copies.to_host(source, mailbox).wait()
            assert torch.equal(mailbox, source), turn
        for version in versions:
            version.normal_()
            copy = copies.to_device(version, target)
            assert copy.done()
            assert torch.equal(target, version), turn
    everything = [each.data_ptr() for each in (*mailboxes, *versions)]
    assert sorted(fake.registered) == sorted((address, 4096, 0) for address in everything)
    assert copies.counts() == (6 - len(refused), len(refused))
    assert copies.refused == ("cudaHostRegister: 801, operation not supported" if refused else "")
    # All versions share a buffer: one is fetched at a time.
    assert fake.pinned == 2 * refuses_mailboxes + refuses_versions
    copies.close()
    assert sorted(fake.forgotten) == sorted(set(everything) - fake.refuses)
