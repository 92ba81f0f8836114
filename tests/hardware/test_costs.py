"""Costs are integer nanoseconds of what a scenario states, and replicas that do not fit are refused with the sum."""

from __future__ import annotations

from typing import Any

import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.costs import Costs, check_memory, nanoseconds, transfer_ns
from asgd_lab.scenario.hardware import Hardware

SIZE = 243_860_896  # bytes: Krizhevsky et al. 2012, 60,965,224 parameters


def hardware(**parts: Any) -> Hardware:
    return Hardware.model_validate(parts)


def test_seconds_become_the_nearest_nanosecond() -> None:
    assert [nanoseconds(seconds) for seconds in (0.0, 1e-9, 1.4e-9, 1.6e-9, 2.5)] == [0, 1, 1, 2, 2_500_000_000]


def test_a_transfer_takes_its_bytes_over_the_bandwidth() -> None:
    costs = Costs.of(hardware(link={"latency_s": 1e-6, "bandwidth_bytes_per_s": 8e9}), SIZE)
    assert costs.up_ns == costs.down_ns == 30_482_612  # 243,860,896 bytes at 8 GB/s
    assert costs.latency_ns == 1000
    assert Costs.of(Hardware(), 10**12).up_ns == 0
    assert transfer_ns(10**12, None) == 0


def test_the_directions_of_a_link_may_differ() -> None:
    costs = Costs.of(hardware(link={"up_bytes_per_s": 1e9, "down_bytes_per_s": 4e9}), 10**9)
    assert (costs.up_ns, costs.down_ns) == (10**9, 10**9 // 4)
    costs = Costs.of(hardware(link={"up_bytes_per_s": 1e9}), 10**9)
    assert (costs.up_ns, costs.down_ns) == (10**9, 0)


def test_a_copy_takes_its_latency_and_its_bytes() -> None:
    staging = {"latency_s": 1e-5, "to_host_bytes_per_s": 6e9, "to_device_bytes_per_s": 3e9}
    costs = Costs.of(hardware(staging=staging), 6 * 10**9)
    assert costs.to_host_ns == 10**9 + 10_000
    assert costs.to_device_ns == 2 * 10**9 + 10_000


def test_servers_divide_what_goes_by_the_byte() -> None:
    server = {"push_s": 1e-3, "fetch_s": 2e-3, "push_bytes_per_s": 1e9, "fetch_bytes_per_s": 2e9}
    for count in (1, 4):
        costs = Costs.of(hardware(server=server | {"count": count}), 4 * 10**9)
        assert costs.server_push_ns == 10**6 + 4 * 10**9 // count
        assert costs.server_fetch_ns == 2 * 10**6 + 2 * 10**9 // count
        assert costs.up_ns == 0


def test_software_costs_are_seconds_alone() -> None:
    costs = Costs.of(hardware(client={"push_s": 0.25, "fetch_s": 0.5}), SIZE)
    assert (costs.client_push_ns, costs.client_fetch_ns) == (250_000_000, 500_000_000)
    assert Costs.of(Hardware(), SIZE) == Costs(0, 0, 0, 0, 0, 0, 0, 0, 0)


# ---------------------------------------------------------------- memory


def test_replicas_that_fit_to_the_byte_are_let_in() -> None:
    check_memory(Hardware(), 10**15)
    check_memory(hardware(device={"memory_bytes": 4 * SIZE}), SIZE)
    check_memory(hardware(device={"memory_bytes": 3 * SIZE + 100, "vectors": 3, "activations_bytes": 100}), SIZE)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            {"memory_bytes": 3999},
            "3,999 bytes are too few: a replica of 4 vectors x 1,000 + 0 of activations need 4,000",
        ),
        (
            {"memory_bytes": 11_999, "workers": 3, "vectors": 2, "activations_bytes": 2000},
            "11,999 bytes are too few: 3 replicas of 2 vectors x 1,000 + 2,000 of activations need 12,000",
        ),
    ],
)
def test_replicas_that_do_not_fit_are_refused_by_key_and_with_the_sum(device: dict[str, int], message: str) -> None:
    host = {"workers": device.get("workers", 1)}
    with pytest.raises(ScenarioError) as caught:
        check_memory(hardware(device=device, host=host), 1000)
    assert caught.value.key == "hardware.device.memory_bytes"
    assert message in str(caught.value)
    check_memory(hardware(device=device | {"memory_bytes": device["memory_bytes"] + 1}, host=host), 1000)


def test_a_transfer_beyond_every_clock_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"1e\+13 bytes at 1 bytes/s take longer than 1e\+09 s"):
        Costs.of(hardware(link={"bandwidth_bytes_per_s": 1.0}), 10**13)
