"""The global random generators of Python, numpy and torch, from which the user's code and torch's layers draw.

torch has one generator per device. Callers of such code seed all generators first, and restore their states after it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch


def seed_all(number: int) -> None:
    """Seed all global generators with this number of 63 bits."""
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])
    if torch.cuda.is_available() or torch.accelerator.is_available():
        torch.manual_seed(number)
    else:  # torch.manual_seed would format the whole stack for each kind of device that there is not
        torch.default_generator.manual_seed(number)


def generators_of(device: torch.device) -> Sequence[torch.Generator]:
    """torch's generators for a model on that device: the host's, and that GPU's (dropout draws from it)."""
    if device.type != "cuda":
        return (torch.default_generator,)
    torch.cuda.init()  # type: ignore[no-untyped-call]  # it creates the GPUs' generators
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.default_generator, torch.cuda.default_generators[index]


def seed_with(generators: Sequence[torch.Generator], number: int) -> None:
    """As `seed_all`, but only these of torch's generators: seeding all would take too long for each minibatch."""
    for each in generators:
        each.manual_seed(number)
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])


@contextlib.contextmanager
def preserving_generators() -> Iterator[None]:
    """Restore the states of all global generators at the end."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)
