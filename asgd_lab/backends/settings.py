"""What torch computes by while a run goes on: one thread and torch's defaults, whatever its caller has said to torch.

Processes of a run start with these; a run in the caller's own process, and a replay, would otherwise have other bits.
Such settings, and torch's random numbers, belong to the whole process: runs of several threads take turns.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_turn = threading.RLock()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Inside, the settings are those of every run; afterwards they are the caller's again."""
    with _turn, contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        yield
