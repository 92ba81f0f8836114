"""What torch computes by while a run goes on: one thread and torch's defaults, whatever its caller has said to torch.

Processes of a run start with these; a run in the caller's own process, and a replay, would otherwise have other bits.
Such settings, and torch's random numbers, belong to the whole process: runs of several threads take turns.
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
    """Inside, the settings are those of every run; afterwards they are the caller's again."""
    with _turn, preserving_settings(), contextlib.ExitStack() as stack:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        choose_algorithms(False)
        for place, word in precisions():
            if place is not torch.backends.cuda.matmul:  # of which the line above is
                setattr(place, word, "ieee" if word == "fp32_precision" else False)
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_without_autocast())
        yield


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """As where nobody has entered one: a model's own then drops its casts of parameters whenever it is left.

    Inside of another, torch keeps them: the next minibatch would compute with the parameters of the one before.
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
