"""Copies between a replica on its GPU and the shared vectors, beside the computation.

Shared memory registered with CUDA is copied at the bus's speed, without the processor. Few drivers register read-only
mappings: so versions are mapped writable, registered, and then protected. A refused vector is copied through a pinned
buffer, with one more copy by the processor.

All copies run on a stream of their own, each after the work queued on the device by then. A CPU that stands in for a
GPU copies as late as allowed, so that a too early use of a vector is detected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from asgd_lab.backends.real.transports.memory import whole_pages


class Copy(Protocol):
    """A copy in progress: neither side may be written, nor the target read, until it is done."""

    def done(self) -> bool:
        """Whether it is done; never waits."""

    def wait(self) -> None:
        """Return when it is done."""


class Staging:
    """One worker's copies, from its device and to it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._registered: dict[int, bool] = {}  # by the address of a shared vector
        self._buffers: dict[int, Tensor] = {}  # by the address of an unregistered mailbox; at 0 one for all versions
        self.refused = ""  # the reason of the last refusal

    def to_host(self, source: Tensor, host: Tensor) -> Copy:
        """Begin to copy a vector of the device to shared memory."""
        if self._stream is None:
            return _Late(source, host)
        if self._is_registered(host):
            return self._begin(source, host)
        buffer = self._buffer(host.data_ptr(), host)
        return self._begin(source, buffer, lambda: host.copy_(buffer))

    def to_device(self, host: Tensor, target: Tensor) -> Copy:
        """Begin to copy shared memory, mapped writable at its first time, to a vector of the device: one at a time."""
        if self._stream is None:
            return _Late(host, target)
        if self._is_registered(host):
            return self._begin(host, target)
        return self._begin(self._buffer(0, host).copy_(host), target)

    def counts(self) -> tuple[int, int]:
        """The numbers of shared vectors that are registered, and that are copied through a buffer."""
        registered = sum(self._registered.values())
        return registered, len(self._registered) - registered

    def close(self) -> None:
        """Unregister all vectors from CUDA, before they are unmapped."""
        if self._stream is not None:
            torch.cuda.synchronize(self._device)
            for address in (address for address, is_registered in self._registered.items() if is_registered):
                torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
            self._registered.clear()

    def _begin(self, source: Tensor, target: Tensor, then: Callable[[], Any] | None = None) -> Copy:
        stream = self._stream
        assert stream is not None
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)
        return _OnStream(event, then)

    def _buffer(self, key: int, like: Tensor) -> Tensor:
        if key not in self._buffers:
            self._buffers[key] = pinned_like(like)
        return self._buffers[key]

    def _is_registered(self, host: Tensor) -> bool:
        address = host.data_ptr()
        if address not in self._registered:
            self._registered[address] = self._register(host)
        return self._registered[address]

    def _register(self, host: Tensor) -> bool:
        """Register the pages of a shared vector, which starts at a page, with CUDA; False if CUDA refuses."""
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        result = runtime.cudaHostRegister(host.data_ptr(), whole_pages(host.nbytes), 0)
        if not int(result):
            return True
        self.refused = f"cudaHostRegister: {int(result)}, {runtime.cudaGetErrorString(result)}"
        forget_error(self._device)
        return False


def pinned_like(vector: Tensor) -> Tensor:
    """Pinned host memory, which CUDA copies directly."""
    return torch.empty_like(vector, pin_memory=True)


def forget_error(device: torch.device) -> None:
    """Clear CUDA's stored error of a failed call, which the next check would raise."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device).add_(1)
        torch.cuda.synchronize(device)


class _OnStream:
    """A copy by CUDA; `then` is called after it."""

    def __init__(self, event: Any, then: Callable[[], Any] | None) -> None:
        self._event, self._then = event, then

    def done(self) -> bool:
        if not self._event.query():
            return False
        self.wait()
        return True

    def wait(self) -> None:
        self._event.synchronize()
        if self._then is not None:
            then, self._then = self._then, None
            then()


class _Late:
    """A copy by a stand-in CPU: made at the second call of `done`, or at `wait`."""

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self._copy: tuple[Tensor, Tensor] | None = (source, target)
        self._looks = 0

    def done(self) -> bool:
        self._looks += 1
        if self._looks > 1:
            self.wait()
        return self._copy is None

    def wait(self) -> None:
        if self._copy is not None:
            (source, target), self._copy = self._copy, None
            target.copy_(source)
