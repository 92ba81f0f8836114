"""The only way to torchvision: everything else asks this file, and asks late, because the import takes seconds.

The wheels of torchvision on PyPI are built with CUDA. Beside a CPU-only torch their compiled operators do not load,
and the import stops with "operator torchvision::nms does not exist", although datasets and classification models use
none of them. Declaring the schemas of the two missing operators is enough. Where the compiled operators do load, a
second declaration would be the error: hence only after a failure.
"""

from __future__ import annotations

import functools
from types import ModuleType

import torch


@functools.cache
def torchvision() -> ModuleType:
    """The module, imported on the first call."""
    try:
        import torchvision as module
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision as module
    assert isinstance(module, ModuleType)
    return module
