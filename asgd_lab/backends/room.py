"""Checks that a run's vectors fit into the memory of this machine and of its GPUs, before they are made."""

from __future__ import annotations

from collections import Counter

from asgd_lab.backends import devices, host_memory
from asgd_lab.backends.build import build_algorithm
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.vectors import Delta
from asgd_lab.scenario import Scenario


def check(scenario: Scenario, size: int, data_bytes: int = 0) -> None:
    """A `ScenarioError`, with the sum, if the scenario's workers have no memory for a task of `size` parameters.

    Counted are the vectors of every such run, and the `data_bytes` that each process will put on its GPU; optimizers
    and other data need more.
    """
    check_gpus(scenario, size, data_bytes)
    workers, algorithm = scenario.workers, build_algorithm(scenario)
    execution = scenario.backend.execution
    servers = max(algorithm.parts, scenario.hardware.server.count if execution.simulated else 0)
    if size and servers > size:
        if algorithm.parts and not scenario.hardware.server.independent:
            raise ScenarioError.at("algorithm", f"has {servers:,} parts, and the task has {size:,} parameters")
        message = f"must be at most the {size:,} parameters, of which each server has a slice; got {servers:,}"
        raise ScenarioError.at("hardware.server.count", message)
    kept = algorithm.rule.all_states(workers)
    own = 2 if algorithm.parts else 1  # a replica's parameters, and a center that parts are copied into
    if algorithm.shared:
        vectors = workers + 1
    elif not execution.apart and devices.home(scenario).type == "cuda":
        vectors = 1  # the other vectors are on the GPU
    elif execution.apart:
        vectors = workers + workers * (own + algorithm.depth) + 2 + 2 * kept + algorithm.gate.keeps
    else:
        vectors = workers * (own + algorithm.depth) + 2 + kept + algorithm.gate.keeps
    host_memory.check(scenario, size, vectors, algorithm.depth)


def check_gpus(scenario: Scenario, size: int, data_bytes: int) -> None:
    """A `ScenarioError` if a GPU has no memory for its workers, with `size` parameters and so many bytes of data.

    Counted are the vectors of every such run; CUDA's own memory, activations and most optimizers need more.
    """
    if scenario.backend.device != "cuda":
        return
    algorithm = build_algorithm(scenario)
    # A replica's parameters, gradients and updates, and the anchor of unpushed work.
    replica = 2 + algorithm.depth + (algorithm.vectors is not Delta)
    if scenario.backend.execution.apart:
        workers = Counter(map(devices.number, range(scenario.workers)))
        each_bytes = 4 * size * (replica + min(2, algorithm.depth)) + data_bytes
        first_bytes = 4 * size * 2 + data_bytes  # of the process that evaluates
    else:
        workers = Counter({0: scenario.workers})
        each_bytes, first_bytes = (
            4 * size * (replica + 1),
            4 * size * (2 + 2 * algorithm.rule.all_states(scenario.workers) + algorithm.gate.keeps) + data_bytes,
        )
    for gpu, those in workers.items():
        needed, free = those * each_bytes + (0 if gpu else first_bytes), devices.free_bytes(gpu)
        if needed > free:
            message = (
                f"{those:,} with {size:,} parameters and {data_bytes / 1e9:,.1f} GB of data need "
                f"{needed / 1e9:,.1f} GB on GPU {gpu}, and {free / 1e9:,.1f} GB are free there; use fewer"
            )
            raise ScenarioError.at("workers", message)
