"""`python -m tests.benchmarks [NAME ...]`: run all benchmarks, or the named ones."""

from __future__ import annotations

import sys

import torch

from tests.benchmarks import (
    batched,
    chaos,
    driver,
    gradients,
    network,
    recording,
    rivals,
    simulator,
    startup,
    sync,
)

BENCHMARKS = {
    module.__name__.rpartition(".")[2]: module
    for module in (driver, sync, rivals, recording, chaos, gradients, batched, network, simulator, startup)
}


def main() -> None:
    torch.set_num_threads(1)
    unknown = set(sys.argv[1:]) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"== {(BENCHMARKS[name].__doc__ or name).splitlines()[0]}", flush=True)
        BENCHMARKS[name].main()


main()
