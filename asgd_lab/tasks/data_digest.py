"""A digest of a task's data: every tensor's bytes, or for a folder of images the names, sizes and statistics.

Reading every image of ILSVRC would take longer than most runs. So a changed image of the same size is noticed only if
it belongs to the sample for the mean image.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from asgd_lab.tasks.base import Data


def digest(data: Data, root: str | None = None) -> str:
    """SHA-256 of the data; file names are taken relative to the folder `root`, so that it may be moved."""
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
