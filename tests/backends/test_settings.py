"""The bits of a run depend on its scenario: on no thread it is called in, and on nothing the caller has told torch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asgd_lab.backends import replay
from asgd_lab.backends.run import execute
from asgd_lab.backends.settings import settled
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.whole import sample

from .scenarios import DIGITS, scenario

# Convolutions, whose gradients several threads add up in another order.
CONVOLUTIONS = {**DIGITS, "model": "small", "batch_size": 64}


def network(backend: str, **parts: Any) -> Scenario:
    """One worker: a real run of several has an order of its own."""
    parts = {"task": CONVOLUTIONS, "workers": 1, "budget": {"minibatches": 4}, "backend": {"name": backend}, **parts}
    return scenario(**parts)


def threads(number: int) -> Callable[[], contextlib.AbstractContextManager[object]]:
    @contextlib.contextmanager
    def said() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        yield
        assert torch.get_num_threads() == number
        torch.set_num_threads(before)

    return said


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def rough_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def rough_by_newer_words() -> Iterator[None]:
    """Of which torch refuses to read the older ones back."""
    backends: Any = torch.backends
    places = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.cuda.matmul, backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "tf32"
    yield
    assert [place.fp32_precision for place in places] == ["tf32"] * 4
    for place, precision in zip(places, before, strict=True):
        place.fp32_precision = precision


@contextlib.contextmanager
def deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    yield
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def nested_autocasts() -> Iterator[None]:
    with torch.autocast("cpu", torch.float16, cache_enabled=False), torch.autocast("cpu", torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.autocast_increment_nesting() == 3
        assert torch.autocast_decrement_nesting() == 2


@contextlib.contextmanager
def other_device() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    assert torch.get_default_device() == torch.device("meta")
    torch.set_default_device(None)


CALLERS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "2 threads": threads(2),
    "3 threads": threads(3),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocasts inside one another": nested_autocasts,
    "double": double_by_default,
    "rough by newer words": rough_by_newer_words,
    "deterministic algorithms": deterministic_algorithms,
    "rough products": rough_products,
    "another device": other_device,
}


def bits(run_dir: Path) -> tuple[Any, ...]:
    minibatches = tables.read(run_dir, "minibatches")
    return (
        final_params(run_dir).tobytes(),
        minibatches["loss"].to_numpy().tobytes(),
        read_summary(run_dir)["final"],
    )


@pytest.mark.xdist_group("process")
def test_a_run_has_the_same_bits_whatever_its_caller_has_said_to_torch(tmp_path: Path) -> None:
    names = ["2 threads", *sample([name for name in CALLERS if name != "2 threads"], 3)]
    execute(network("process"), tmp_path / "process")  # in processes of its own
    expected = bits(tmp_path / "process")
    assert expected[2]
    for backend in ("inline", "sim"):
        for name in names:
            with CALLERS[name]():
                execute(network(backend), tmp_path / backend / name)
            assert bits(tmp_path / backend / name) == expected, (backend, name)
    for name in names:
        with CALLERS[name]():
            assert replay.repeat(network("process"), tmp_path / "process").difference is None, name
    with threads(2)():
        execute(network("process"), tmp_path / "again")
    assert bits(tmp_path / "again") == expected


def test_warm_starts_have_the_same_bits_too(tmp_path: Path) -> None:
    for number in (1, 2):
        with threads(number)():
            execute(network("sim", warm_start={"minibatches": 2}, seed=number), tmp_path / f"first {number}")
    with threads(2)():
        execute(network("sim", warm_start={"minibatches": 2}, seed=1), tmp_path / "again")
    assert bits(tmp_path / "again") == bits(tmp_path / "first 1")


IMPORTED = """
import torch
from torch import nn
torch.set_float32_matmul_precision("medium")
torch.set_num_threads(3)
torch.backends.cudnn.benchmark = True
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
def model(num_classes):
    assert torch.get_num_threads() == 1
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, num_classes))
"""


@pytest.mark.xdist_group("process")
def test_what_a_users_module_says_to_torch_is_said_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported once a process: of two equal runs one would have its settings, and each real worker."""
    (tmp_path / "says_much.py").write_text(IMPORTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = {**CONVOLUTIONS, "model": "says_much:model"}
    found = []
    for number, backend in enumerate(("inline", "inline", "sim", "process")):
        execute(network(backend, task=task), tmp_path / str(number))
        found.append(bits(tmp_path / str(number)))
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.benchmark
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.get_default_device() == torch.device("cpu")
    assert found[0] == found[1] == found[2] == found[3]


def test_without_one_thread_the_bits_would_be_others() -> None:
    """Else the tests above could not fail."""
    images, kernels = torch.randn(64, 1, 8, 8), torch.randn(8, 1, 3, 3, requires_grad=True)
    gradients = []
    for number in (1, 2):
        with threads(number)():
            loss = torch.nn.functional.conv2d(images, kernels, padding=1).square().mean()
            gradients += torch.autograd.grad(loss, kernels)
    assert not torch.equal(*gradients)


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_run_in_another_thread_is_the_same(backend: str, tmp_path: Path) -> None:
    execute(network(backend), tmp_path / "main")
    before, failures = torch.get_num_threads(), []

    def run() -> None:
        try:
            torch.set_num_threads(2)
            execute(network(backend), tmp_path / "other")
            assert torch.get_num_threads() == 2
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    assert failures == []
    torch.set_num_threads(before)
    assert bits(tmp_path / "other") == bits(tmp_path / "main")


def test_runs_in_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(4)]
    together = [
        threading.Thread(target=execute, args=(network("sim", seed=1 + number % 2), tmp_path / name))
        for number, name in enumerate(names)
    ]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join(120)
    found = [bits(tmp_path / name) for name in names]
    assert found[0] == found[2] != found[1] == found[3]
    assert np.isfinite(final_params(tmp_path / "0")).all()


def test_the_settings_are_the_callers_again_however_a_run_ends() -> None:
    with threads(2)(), pytest.raises(ZeroDivisionError), settled():
        raise ZeroDivisionError
    assert torch.get_num_threads() == 1
