from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.errors import ProtocolError
from asgd_lab.record.summary import Statistics, params_sha256

PUSHES = st.lists(st.tuples(st.booleans(), st.integers(0, 10**7), st.integers(0, 1000)), max_size=60)
BUSY = st.lists(st.lists(st.integers(0, 10**15), max_size=5), min_size=1, max_size=80)


def summary(statistics: Statistics, makespan_ns: int = 10**9, **changes: object) -> dict[str, object]:
    arguments: dict[str, object] = {
        "backend": "sim",
        "seed": 3,
        "makespan_ns": makespan_ns,
        "updates": 5,
        "final": {"test_error": 0.25},
        "params_sha256": "ab",
    }
    return statistics.summary(**{**arguments, **changes})  # type: ignore[arg-type]


@given(pushes=PUSHES, busy=BUSY, server=st.lists(st.integers(0, 10**15), max_size=5), makespan=st.integers(1, 10**18))
def test_statistics_are_those_of_the_whole_list(
    pushes: list[tuple[bool, int, int]], busy: list[list[int]], server: list[int], makespan: int
) -> None:
    statistics = Statistics(len(busy))
    for applied, staleness, steps in pushes:
        if applied:
            statistics.applied(staleness, steps)
        else:
            statistics.dropped(steps)
    for worker, times in enumerate(busy):
        for time_ns in times:
            statistics.worker_busy(worker, time_ns)
    for time_ns in server:
        statistics.server_busy(time_ns)

    used = [(staleness, steps) for applied, staleness, steps in pushes if applied]
    minibatches = sum(steps for _, steps in used)
    expected = {
        "backend": "sim",
        "workers": len(busy),
        "seed": 3,
        "makespan_s": makespan / 1e9,
        "minibatches": minibatches,
        "updates": 5,
        "pushes": len(pushes),
        "dropped": len(pushes) - len(used),
        "dropped_minibatches": sum(steps for applied, _, steps in pushes if not applied),
        "minibatches_per_s": float(Fraction(minibatches * 10**9, makespan)),
        "staleness": {
            "mean": float(Fraction(sum(value for value, _ in used), len(used))) if used else 0.0,
            "max": max((value for value, _ in used), default=0),
            "histogram": {str(k): n for k, n in sorted(Counter(value for value, _ in used).items())},
        },
        "utilisation": {
            "workers": float(Fraction(sum(map(sum, busy)), makespan * len(busy))),
            "server": float(Fraction(sum(server), makespan)),
        },
        "final": {"test_error": 0.25},
        "params_sha256": "ab",
    }
    got = summary(statistics, makespan)
    listed = got["utilisation"].pop("per_worker", None)  # type: ignore[attr-defined]
    assert got == expected
    assert list(got["staleness"]["histogram"]) == list(expected["staleness"]["histogram"])  # type: ignore[index]
    assert listed == [float(Fraction(sum(times), makespan)) for times in busy]


def test_a_run_in_which_nothing_happened_has_a_summary_of_zeros() -> None:
    got = summary(Statistics(2), makespan_ns=0)
    assert got["minibatches_per_s"] == got["makespan_s"] == 0
    assert got["staleness"] == {"mean": 0, "max": 0, "histogram": {}}
    assert got["utilisation"] == {"workers": 0, "server": 0, "per_worker": [0, 0]}
    json.dumps(got, allow_nan=False)


def test_a_negative_staleness_is_the_backends_bug() -> None:
    with pytest.raises(ProtocolError, match="staleness -1"):
        Statistics(1).applied(-1, 1)


def test_the_hash_is_over_float32_little_endian_bytes() -> None:
    values = [0.0, -0.0, 1.5, -3.25e-20]
    expected = hashlib.sha256(struct.pack("<4f", *values)).hexdigest()
    assert params_sha256(np.array(values, np.float32)) == expected
    assert params_sha256(np.array(values, ">f4")) == expected
    assert params_sha256(np.array(values * 2, np.float32)[::2]) != expected
    assert params_sha256(np.repeat(np.array(values, np.float32), 2)[::2]) == expected
    assert params_sha256(np.empty(0, np.float32)) == hashlib.sha256().hexdigest()
