"""A digest of a task's data: of every tensor's bytes, or of a folder of images the names, sizes and statistics.

Reading every picture of ILSVRC would take longer than most runs. A picture that changes and keeps its size is therefore
noticed only if it is one of those that the mean image is taken of.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from asgd_lab.tasks.base import Data


def digest(data: Data, root: str | None = None) -> str:
    """SHA-256 of the data; names of files count from the folder `root`, so that it may be moved."""
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
