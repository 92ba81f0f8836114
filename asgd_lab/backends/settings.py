"""What torch computes by while a run goes on: one thread and torch's defaults, whatever its caller has said to torch.

Processes of a run start with these; a run in the caller's own process, and a replay, would otherwise have other bits.
Such settings, and torch's random numbers, belong to the whole process: runs of several threads take turns.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

_turn = threading.RLock()
_AUTOCAST = {"cpu": torch.bfloat16, "cuda": torch.float16}  # torch's own choice of what to cast to


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Inside, the settings are those of every run; afterwards they are the caller's again."""
    with _turn, contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        stack.enter_context(_in_float32())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_without_autocast())
        stack.enter_context(_of_gpus())
        yield


@contextlib.contextmanager
def _in_float32() -> Iterator[None]:
    """Products and convolutions of float32 are rounded to it alone, on the CPU and on a GPU.

    torch has older and newer words for that; it refuses to read an older one back where they say something else.
    """
    backends: Any = torch.backends
    older: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_float32_matmul_precision, _read(torch.get_float32_matmul_precision)),
        (functools.partial(setattr, backends.cudnn, "allow_tf32"), _read(lambda: backends.cudnn.allow_tf32)),
    ]
    places = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn] if hasattr(backends.cudnn, "conv") else []
    places += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn] if places else []
    newer = [place.fp32_precision for place in places]
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    for place in places[3:]:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for put_back, value in older:
            if value is not None:
                put_back(value)
        for place, precision in zip(places, newer, strict=True):
            place.fp32_precision = precision


def _read(setting: Callable[[], Any]) -> Any:
    try:
        return setting()
    except RuntimeError:
        return None


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


@contextlib.contextmanager
def _of_gpus() -> Iterator[None]:
    """What a run says to torch about GPUs, such as which one is the current one, it says for itself alone."""
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    is_initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    current = torch.cuda.current_device() if is_initialized else None
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic = cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if current is not None:
            torch.cuda.set_device(current)
