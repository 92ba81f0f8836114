"""The numbers of a run, counted as it goes: exact integers until the summary divides them, never the host's time."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asgd_lab.errors import ProtocolError

LATENESS_ALLOWED = 0.02  # above it an emulated machine was slower than stated, and the measurement is invalid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Statistics:
    """Counters that a backend feeds; a push ends exactly once: applied (or merged into a version), or dropped."""

    def __init__(self, workers: int) -> None:
        self._staleness: defaultdict[int, int] = defaultdict(int)
        self._of_parts: defaultdict[int, Counter[int]] = defaultdict(Counter)  # the same of each part of the vector
        self._minibatches = 0
        self._dropped = 0
        self._dropped_minibatches = 0
        self._worker_busy_ns = [0] * workers
        self._server_busy_ns = 0

    @property
    def minibatches(self) -> int:
        """The minibatches of applied pushes."""
        return self._minibatches

    def applied(self, staleness: int, steps: int) -> None:
        """One push of `steps` minibatches became part of a version."""
        if staleness < 0:
            raise ProtocolError(f"an applied push has staleness {staleness}; it is a count of versions")
        self._staleness[staleness] += 1
        self._minibatches += steps

    def applied_to_part(self, part: int, staleness: int) -> None:
        """A push that counts as applied became part of a version of this part."""
        self._of_parts[part][staleness] += 1

    def dropped(self, steps: int) -> None:
        """One push of `steps` minibatches was received and dropped."""
        self._dropped += 1
        self._dropped_minibatches += steps

    def worker_busy(self, worker: int, busy_ns: int) -> None:
        """The worker computed for `busy_ns` (waiting and transfers do not count)."""
        self._worker_busy_ns[worker] += busy_ns

    def server_busy(self, busy_ns: int) -> None:
        self._server_busy_ns += busy_ns

    def summary(
        self,
        *,
        backend: str,
        seed: int,
        makespan_ns: int,
        updates: int,
        final: Mapping[str, float],
        params_sha256: str,
    ) -> dict[str, Any]:
        """The content of summary.json, except its status.

        `updates` counts versions: fewer than pushes in lock-step. `minibatches` counts those of applied pushes; those
        of dropped pushes are counted apart. Means, rates and utilisations are 0 in a run without any push.
        """
        workers = len(self._worker_busy_ns)
        parts = [_spread(self._of_parts[part]) for part in range(max(self._of_parts, default=-1) + 1)]
        utilisation: dict[str, Any] = {
            "workers": _ratio(sum(self._worker_busy_ns), workers * makespan_ns),
            "server": _ratio(self._server_busy_ns, makespan_ns),
            "per_worker": [_ratio(busy, makespan_ns) for busy in self._worker_busy_ns],
        }
        return {
            "backend": backend,
            "workers": workers,
            "seed": seed,
            "makespan_s": makespan_ns / 1e9,
            "minibatches": self._minibatches,
            "updates": updates,
            "pushes": sum(self._staleness.values()) + self._dropped,
            "dropped": self._dropped,
            "dropped_minibatches": self._dropped_minibatches,
            "minibatches_per_s": _ratio(self._minibatches * 1_000_000_000, makespan_ns),
            "staleness": _spread(self._staleness)
            | {"histogram": {str(staleness): count for staleness, count in sorted(self._staleness.items())}},
            **({"staleness_per_shard": parts} if parts else {}),
            "utilisation": utilisation,
            "final": dict(final),
            "params_sha256": params_sha256,
        }


def params_sha256(params: npt.NDArray[np.float32]) -> str:
    """The hash of the parameters' float32 little-endian bytes."""
    return hashlib.sha256(params.astype("<f4", order="C", copy=False).data).hexdigest()


def _spread(staleness: Mapping[int, int]) -> dict[str, Any]:
    """The mean and the maximum of a histogram."""
    total = sum(value * count for value, count in staleness.items())
    return {"mean": _ratio(total, sum(staleness.values())), "max": max(staleness, default=0)}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
