"""All benchmarks, in the order in which `make bench` runs them."""

from __future__ import annotations

from tests.benchmarks import (
    batched,
    chaos,
    driver,
    frozen,
    gradients,
    network,
    pixels,
    recording,
    rivals,
    simulator,
    startup,
    sync,
    text,
    wrapper,
)

MODULES = (
    *(driver, sync, rivals, recording, chaos, gradients, batched, network, simulator, startup, wrapper, text, pixels),
    frozen,
)
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in MODULES}
