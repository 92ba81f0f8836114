"""A finder that makes torchvision importable beside a CPU-only torch; importing this file installs it.

The wheels of torchvision on PyPI are built with CUDA. Beside a CPU-only torch their compiled operators do not load,
and the import stops with "operator torchvision::nms does not exist", although datasets and classification models use
none of them. Declaring the schemas of the two missing operators is enough. Where the compiled operators do load, a
second declaration would be an error: so the schemas are declared only after torchvision has tried to load them. Other
imports cost one more comparison of a name.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import final

import torch

_NEEDS_SCHEMAS = "torchvision._meta_registrations"  # imported after the compiled operators


@final
class _Schemas:
    """A finder of modules that finds none, and declares the operators when torchvision needs them."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == _NEEDS_SCHEMAS:
            for operator in ("nms", "qnms"):
                with contextlib.suppress(RuntimeError):  # it is declared already
                    if not hasattr(torch.ops.torchvision, operator):
                        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                        torch.library.define(f"torchvision::{operator}", schema)


if _Schemas not in sys.meta_path:
    sys.meta_path.insert(0, _Schemas)


def torchvision() -> ModuleType:
    """The module, imported on the first call, which takes seconds."""
    return importlib.import_module("torchvision")
