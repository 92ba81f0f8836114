"""The stated costs of a scenario's hardware as integer nanoseconds, apart from what workers share."""

from __future__ import annotations

from dataclasses import dataclass

from asgd_lab.configuration import MOST_S
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario.hardware import Hardware


def nanoseconds(seconds: float) -> int:
    """Seconds as the nearest integer number of nanoseconds."""
    return round(seconds * 1e9)


def transfer_ns(size_bytes: float, bytes_per_s: float | None) -> int:
    """Nanoseconds to move `size_bytes`; 0 without a limit on the rate. ScenarioError beyond MOST_S."""
    if bytes_per_s is None:
        return 0
    if size_bytes > MOST_S * bytes_per_s:
        message = (
            f"{size_bytes:.3g} bytes at {bytes_per_s:.3g} bytes/s take longer than {MOST_S:.0g} s; give a faster link"
        )
        raise ScenarioError.at("hardware", message)
    return nanoseconds(size_bytes / bytes_per_s)


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of one push and one fetch of a vector, without waiting."""

    client_push_ns: int
    client_fetch_ns: int
    to_host_ns: int  # staging, its latency included
    to_device_ns: int
    server_push_ns: int  # of each server, for its slice of the vector
    server_fetch_ns: int
    latency_ns: int  # of `link`, one way
    up_ns: int  # the whole vector over `link`, without other transfers
    down_ns: int

    @classmethod
    def of(cls, hardware: Hardware, size_bytes: int) -> Costs:
        """The costs of a vector of `size_bytes` on this hardware."""
        client, staging, link, server = hardware.client, hardware.staging, hardware.link, hardware.server
        slice_bytes = size_bytes / server.count
        to_host, to_device = staging.to_host_bytes_per_s, staging.to_device_bytes_per_s
        return cls(
            client_push_ns=nanoseconds(client.push_s),
            client_fetch_ns=nanoseconds(client.fetch_s),
            to_host_ns=nanoseconds(staging.latency_s) + transfer_ns(size_bytes, to_host),
            to_device_ns=nanoseconds(staging.latency_s) + transfer_ns(size_bytes, to_device),
            server_push_ns=nanoseconds(server.push_s) + transfer_ns(slice_bytes, server.push_bytes_per_s),
            server_fetch_ns=nanoseconds(server.fetch_s) + transfer_ns(slice_bytes, server.fetch_bytes_per_s),
            latency_ns=nanoseconds(link.latency_s),
            up_ns=transfer_ns(size_bytes, link.up),
            down_ns=transfer_ns(size_bytes, link.down),
        )


def check_memory(hardware: Hardware, size_bytes: int) -> None:
    """A ScenarioError, with the sum, if the replicas do not fit into their device's memory."""
    device = hardware.device
    if device.memory_bytes is None:
        return
    needed = device.workers * (device.vectors * size_bytes + device.activations_bytes)
    if needed > device.memory_bytes:
        who = "a replica" if device.workers == 1 else f"{device.workers} replicas"
        each = f"{device.vectors} vectors x {size_bytes:,} + {device.activations_bytes:,} of activations"
        message = f"{device.memory_bytes:,} bytes are too few: {who} of {each} need {needed:,}"
        raise ScenarioError.at("hardware.device.memory_bytes", message)
