"""torch's process-wide settings, restored after the user's code has run.

A module may change settings when it is imported, which happens once per process: without the restoration, only the
first of two equal runs would have them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

_backends: Any = torch.backends


@contextlib.contextmanager
def preserving_settings() -> Iterator[None]:
    """Restore threads, types, precision, algorithms and devices at the end."""
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.callback(_set_default_device, torch.get_default_device())
        stack.callback(_set, precisions(), [_read(place, word) for place, word in precisions()])
        stack.callback(torch.set_float32_matmul_precision, _matmul_precision() or "highest")
        stack.callback(choose_algorithms, *_algorithms())
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            stack.callback(torch.cuda.set_device, torch.cuda.current_device())
        yield


def choose_algorithms(deterministic: bool, warn_only: bool = False) -> None:
    """Call torch.use_deterministic_algorithms only if it changes something: its imports take seconds."""
    if _algorithms() != (deterministic, warn_only):
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _algorithms() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def precisions() -> list[tuple[Any, str]]:
    """Objects and attributes of torch's settings for float32 precision and algorithms, older names first.

    torch raises an error on reading an older name if a newer one has another value.
    """
    found = [(_backends.cudnn, word) for word in ("deterministic", "benchmark", "allow_tf32")]
    if hasattr(_backends.cudnn, "conv"):
        cudnn, mkldnn = _backends.cudnn, _backends.mkldnn
        places = (_backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
        found += [(place, "fp32_precision") for place in places]
    return found


def _set(places: list[tuple[Any, str]], values: list[Any]) -> None:
    for (place, word), value in zip(places, values, strict=True):
        if value is not None:
            setattr(place, word, value)


def _read(place: Any, word: str) -> Any:
    return _or_none(lambda: getattr(place, word))


def _matmul_precision() -> Any:
    return _or_none(torch.get_float32_matmul_precision)


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:
        return None


def _set_default_device(device: torch.device) -> None:
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)
