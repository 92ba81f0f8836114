"""The model in a run directory: the final one, or the one of a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, checkpoints, file_hashes

_OF_BUFFER = "buffer."  # in final.npz, before the names of buffers


class SavedModel(NamedTuple):
    """Parameters and buffers as a run or a checkpoint saved them."""

    params: npt.NDArray[np.float32]  # (P,) the server's
    buffers: Mapping[str, npt.NDArray[Any]]  # the first worker's, by their names in the model


def final(run_dir: Path | str) -> SavedModel:
    """The final model of a finished run; ScenarioError if there is none, or if it is damaged."""
    path = Path(run_dir) / "checkpoints" / "final.npz"
    if not file_hashes.check(run_dir, "checkpoints/final.npz") and not os.path.lexists(path):
        raise ScenarioError(f"{run_dir}: has no final parameters (checkpoints/final.npz is missing)")
    arrays = atomic_files.read_arrays(path)
    if "params" not in arrays:
        raise atomic_files.damaged(path, "it holds no parameters")
    return SavedModel(np.asarray(arrays["params"], dtype=np.float32), _behind(_OF_BUFFER, arrays))


def final_params(run_dir: Path | str) -> npt.NDArray[np.float32]:
    """The final server parameters of a finished run, flat."""
    return final(run_dir).params


def saved(path: Path | str) -> SavedModel:
    """The model at `path`: of a run its final one, or that of its last checkpoint; or the one of a checkpoint."""
    path = Path(path)
    if file_hashes.check(path, "checkpoints/final.npz") or os.path.lexists(path / "checkpoints" / "final.npz"):
        return final(path)
    found = [path] if os.path.lexists(path / "server.npz") else checkpoints.all_of(path)
    if not found:
        raise ScenarioError(f"{path}: has neither final parameters nor a checkpoint")
    checkpoint = found[-1]
    state = checkpoints.check(checkpoint)  # no older one is used instead: it would be another start
    arrays = checkpoints.read(checkpoint, "server")
    if "params" not in arrays:
        raise ScenarioError(f"{checkpoint}: is of a run without parameters")
    of_worker = checkpoints.read(checkpoint, f"worker-{min(state.workers)}") if state.workers else {}
    return SavedModel(np.asarray(arrays["params"], dtype=np.float32), _behind("model.", of_worker))


def _behind(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def write(run_dir: Path, params: npt.NDArray[np.float32], buffers: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the final model of a run."""
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    arrays = {"params": params, **{_OF_BUFFER + name: value for name, value in buffers.items()}}
    atomic_files.write_arrays(run_dir / "checkpoints" / "final.npz", arrays)
