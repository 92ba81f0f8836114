"""torch's settings during a run: one thread and torch's defaults, independent of the caller's settings.

Processes of a run start with these settings; without them a run in the caller's process, and a replay, would have other
bits. Settings and torch's generators belong to the whole process: runs in several threads take turns.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

from asgd_lab.tasks.torch_settings import choose_algorithms, precisions, preserving_settings

_turn = threading.RLock()
_AUTOCAST = {"cpu": torch.bfloat16, "cuda": torch.float16}  # torch's own choice of what to cast to


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Use the settings of every run inside, and restore the caller's settings afterwards."""
    with _turn, preserving_settings(), contextlib.ExitStack() as stack:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        choose_algorithms(False)
        for place, word in precisions():
            if place is not torch.backends.cuda.matmul:  # set by set_float32_matmul_precision above
                setattr(place, word, "ieee" if word == "fp32_precision" else False)
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_without_autocast())
        yield


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """Leave all autocast contexts inside: a model's own then drops its casts of parameters whenever it ends.

    Inside another autocast, torch keeps the casts: the next minibatch would compute with old parameters.
    """
    before = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _AUTOCAST}
    caches = torch.is_autocast_cache_enabled()
    depth = torch.autocast_increment_nesting() - 1
    for _ in range(depth + 1):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(True)
    for kind, dtype in _AUTOCAST.items():
        torch.set_autocast_enabled(kind, False)
        torch.set_autocast_dtype(kind, dtype)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        for _ in range(depth):
            torch.autocast_increment_nesting()
        torch.set_autocast_cache_enabled(caches)
        for kind, (enabled, chosen) in before.items():
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, chosen)
