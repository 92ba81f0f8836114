"""A task's data, read in the process that starts the others, and their facts for the record: digest and standard."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asgd_lab.tasks.base import Data

_facts: dict[str, dict[str, Any]] = {}  # of the data read last


def load(config: Any) -> Data:
    """The data's tensors, or {} for a task without data; tensors are read-only, so processes may share them."""
    data: Data = config.load()
    if config.has_data:
        _facts.clear()
        _facts[source(config)] = {"sha256": digest(data, getattr(config, "data_folder", None)), **_standard(data)}
    return data


def facts_of(config: Any, *, again: bool = False) -> dict[str, Any] | None:
    """The digest of the data as this process read them last, and if they are standardised by what mean and deviation.

    With `again` they are read now: files may have changed since. None for a task without data.
    """
    if not config.has_data:
        return None
    if again or source(config) not in _facts:
        load(config)
    return _facts[source(config)]


def _standard(data: Data) -> dict[str, Any]:
    found = data.get("standard", data.get("standardised"))
    return {} if found is None else {"standard": dict(zip(("mean", "deviation"), found.tolist(), strict=True))}


def source(config: Any) -> str:
    """The keys that decide which data a task reads, as text; all of its keys where it does not say which they are."""
    if config.data_keys is None:
        return repr(config)
    return repr([config.name, *(getattr(config, key) for key in config.data_keys)])


def digest(data: Data, root: str | None = None) -> str:
    """SHA-256 of the data; file names are taken relative to the folder `root`, so that it may be moved.

    It is that of every tensor's bytes, or for a folder of images that of names, sizes and statistics: reading every
    image of ILSVRC would take longer than most runs. So a changed image of the same size is noticed only if it belongs
    to the sample for the mean image.
    """
    whole = hashlib.sha256()
    for name in sorted(data):
        tensor = data[name].detach().cpu().contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if name.endswith("_files"):
            for file in _names(tensor):
                size = os.path.getsize(file) if os.path.exists(file) else -1
                inside = os.path.relpath(file, Path(root).expanduser()) if root else file
                whole.update(f"{size} ".encode() + os.fsencode(inside) + b"\0")
        elif tensor.numel():
            whole.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _names(files: Tensor) -> list[str]:
    return [os.fsdecode(bytes(row).rstrip(b"\0")) for row in files.numpy()]
