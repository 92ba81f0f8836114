"""Processes read memory-mapped data from their files, everything else from one copy in shared memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from asgd_lab.backends.real.transports.memory import Buffer
from asgd_lab.backends.real.transports.shared_tensors import SharedTensors
from asgd_lab.errors import RunFailed

BYTES = 2**21


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "many words.npy"
    np.save(path, np.random.default_rng(0).integers(0, 2**16, (1024, BYTES // 2048), dtype=np.uint16))
    return path


def shared_bytes(monkeypatch: pytest.MonkeyPatch, tensors: dict[str, torch.Tensor]) -> tuple[int, SharedTensors]:
    sizes: list[int] = []
    original = Buffer.__init__

    def counted(self: Buffer, name: str, size_bytes: int) -> None:
        sizes.append(size_bytes)
        original(self, name, size_bytes)

    monkeypatch.setattr(Buffer, "__init__", counted)
    shared = SharedTensors(tensors)
    return sum(sizes), shared


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_a_mapped_array_and_its_views_are_not_copied(stored: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.from_numpy(np.load(stored, mmap_mode=mode))  # type: ignore[call-overload]
    tensors = {"all": whole, "later": whole[300:], "few": torch.arange(5)}
    copied, shared = shared_bytes(monkeypatch, tensors)
    assert copied < 10_000
    found = shared.tensors()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())
    shared.close()


def test_a_private_mapping_that_was_written_to_is_copied(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.load(stored, mmap_mode="c")
    array[-1, -1] ^= 1
    copied, shared = shared_bytes(monkeypatch, {"all": torch.from_numpy(array)})
    assert copied >= BYTES
    assert torch.equal(shared.tensors()["all"], torch.from_numpy(array))
    shared.close()


@pytest.mark.parametrize("change", ["touched", "cut", "gone"])
def test_a_file_that_changes_during_the_run_is_refused(stored: Path, change: str) -> None:
    shared = SharedTensors({"all": torch.from_numpy(np.load(stored, mmap_mode="c"))})
    if change == "touched":
        os.utime(stored, ns=(1, 1))
    elif change == "cut":
        os.truncate(stored, 5000)
    else:
        stored.unlink()
    with pytest.raises(RunFailed, match="many words"):
        shared.tensors()
    shared.close()
