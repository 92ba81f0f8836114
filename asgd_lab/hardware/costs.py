"""The stated costs of a scenario's hardware as integer nanoseconds, and the random compute times of its devices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asgd_lab import streams
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario.hardware import Compute, Hardware

BLOCK = 4096  # step times drawn at once


def nanoseconds(seconds: float) -> int:
    """Seconds as the nearest integer number of nanoseconds."""
    return round(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class Costs:
    """What one push and one fetch of `size_bytes` cost, besides waiting for one another."""

    client_push_ns: int
    client_fetch_ns: int
    server_push_ns: int
    server_fetch_ns: int
    latency_ns: int  # one way
    transfer_ns: int  # of the vector, one way
    one_sided_fetch: bool = False

    @classmethod
    def of(cls, hardware: Hardware, size_bytes: int) -> Costs:
        """The costs of a vector of `size_bytes` on this hardware."""
        bandwidth = hardware.link.bandwidth_bytes_per_s
        return cls(
            client_push_ns=nanoseconds(hardware.client.push_s),
            client_fetch_ns=nanoseconds(hardware.client.fetch_s),
            server_push_ns=nanoseconds(hardware.server.push_s),
            server_fetch_ns=nanoseconds(hardware.server.fetch_s),
            latency_ns=nanoseconds(hardware.link.latency_s),
            transfer_ns=nanoseconds(size_bytes / bandwidth) if bandwidth is not None else 0,
            one_sided_fetch=hardware.server.one_sided_fetch,
        )


def mean_step_s(compute: Compute, stated_step_s: float | None = None) -> float:
    """Mean seconds a minibatch; `stated_step_s` is the task's own statement, where the hardware has none."""
    if compute.samples_s is not None:
        return float(np.mean(compute.samples_s))
    step_s = compute.step_s if compute.step_s is not None else stated_step_s
    if step_s is None:
        raise ScenarioError.at("hardware.compute.step_s", "this backend needs the seconds that a minibatch takes")
    return step_s


class StepTimes:
    """One worker's step times from its own random stream; the same whoever asks, a simulator or an emulated device."""

    __slots__ = ("_compute", "_constant_ns", "_drawn", "_mean_s", "_next", "_random")

    def __init__(self, compute: Compute, seed: int, worker: int, stated_step_s: float | None = None) -> None:
        self._compute = compute
        self._mean_s = mean_step_s(compute, stated_step_s)
        self._constant_ns = max(1, nanoseconds(self._mean_s)) if compute.distribution == "constant" else None
        self._random = streams.generator(seed, worker, "compute")
        self._drawn = np.empty(0, np.int64)
        self._next = 0

    def total_ns(self, steps: int) -> int:
        """Nanoseconds of the next `steps` minibatches together."""
        if self._constant_ns is not None:
            return steps * self._constant_ns
        return int(self._take(steps).sum())

    def ends_ns(self, steps: int) -> list[int]:
        """When each of the next `steps` minibatches ends, in nanoseconds from their common start."""
        if self._constant_ns is not None:
            return list(range(self._constant_ns, (steps + 1) * self._constant_ns, self._constant_ns))
        ends: list[int] = np.cumsum(self._take(steps)).tolist()
        return ends

    def draw_ahead(self) -> None:
        """Draw the first block now: whoever waits out these times would otherwise draw it while the clock runs."""
        if self._constant_ns is None:
            self._drawn = self._draw(BLOCK)

    def _take(self, steps: int) -> NDArray[np.int64]:
        if self._next + steps > len(self._drawn):
            rest = self._drawn[self._next :]
            self._drawn = np.concatenate([rest, self._draw(max(BLOCK, steps))])
            self._next = 0
        taken = self._drawn[self._next : self._next + steps]
        self._next += steps
        return taken

    def _draw(self, count: int) -> NDArray[np.int64]:
        compute, random = self._compute, self._random
        if compute.distribution == "exponential":
            seconds = random.exponential(self._mean_s, count)
        elif compute.distribution == "lognormal":
            variance = math.log1p(compute.cv**2)
            seconds = random.lognormal(math.log(self._mean_s) - variance / 2, math.sqrt(variance), count)
        else:
            assert compute.samples_s is not None
            seconds = random.choice(np.asarray(compute.samples_s), count)
        return np.maximum(np.rint(seconds * 1e9).astype(np.int64), 1)
